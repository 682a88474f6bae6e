"""Greenlets that send events and EDUs to other servers."""
