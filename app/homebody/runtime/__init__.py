"""What keeps a process running and observable; knows nothing of Matrix."""
