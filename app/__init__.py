"""homebody, a Matrix homeserver."""
