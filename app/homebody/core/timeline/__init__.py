"""How an event comes into a room."""
