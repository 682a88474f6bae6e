"""The process around the application: gunicorn, the checks at startup, backup and restore."""
