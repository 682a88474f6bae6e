"""Unread counts and notifications, as push rules make them, and pushers."""
