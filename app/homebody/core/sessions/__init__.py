"""How accounts and sessions begin and end: registration, login, devices, deactivation."""
