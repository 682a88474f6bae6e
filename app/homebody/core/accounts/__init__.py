"""Accounts and their credentials: passwords, access tokens, login tokens, e-mail addresses."""
