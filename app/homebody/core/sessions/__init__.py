"""Registration, login, devices, user-interactive authentication, deactivation."""
