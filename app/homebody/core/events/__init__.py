"""Reading events and state: who may see what, and in which form."""
