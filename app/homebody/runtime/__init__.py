"""The event loop, wake-ups, logs, metrics and memory: code that knows nothing of Matrix."""
