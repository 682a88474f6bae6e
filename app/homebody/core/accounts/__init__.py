"""Accounts and what proves who somebody is: access tokens, login tokens, e-mail addresses."""
