"""Accounts, their sessions and devices, and what they say of themselves."""
