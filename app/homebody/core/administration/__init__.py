"""What administrators see and do that spans several topics."""
