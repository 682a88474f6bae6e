"""Rooms: how events come into being, who takes part, what may be read."""
