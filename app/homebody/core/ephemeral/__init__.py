"""Ephemeral events: typing, presence, receipts."""
