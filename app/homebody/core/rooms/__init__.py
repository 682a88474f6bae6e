"""Rooms: creation, membership, state, aliases, directory, spaces, upgrades, reports, purging."""
