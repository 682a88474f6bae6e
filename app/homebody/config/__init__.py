"""Settings: their declarations, sources and values."""
