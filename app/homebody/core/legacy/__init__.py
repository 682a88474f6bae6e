"""Endpoints that /sync has replaced: the event stream and the initial sync."""
