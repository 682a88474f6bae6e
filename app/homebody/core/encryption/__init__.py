"""End-to-end encryption: what the server keeps for it, without ever reading a message."""
