"""Blueprints of Synapse's admin API, as administration tools call it."""

PREFIX = "/_synapse/admin"
