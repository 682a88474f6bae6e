"""What a browser sees: well-known files, fallback pages, health."""
