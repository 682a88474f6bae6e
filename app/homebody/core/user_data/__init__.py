"""What belongs to one user alone: account data, tags, push rules, filters."""
