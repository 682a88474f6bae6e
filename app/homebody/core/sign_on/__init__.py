"""Logging in with an account at another provider, by OpenID Connect."""
