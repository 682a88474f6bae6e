"""Data that belongs to one user: account data, tags, push rules, ignored users, filters."""
