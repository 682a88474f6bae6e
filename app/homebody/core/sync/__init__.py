"""The response to /sync; client_server/sync.py waits for it."""
