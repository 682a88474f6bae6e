"""Profiles of users, and the directory in which they are found."""
