"""Push rules of an account, and the counts of unread events that they make."""
