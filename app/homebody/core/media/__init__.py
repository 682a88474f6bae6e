"""The content repository: files, and thumbnails of them."""
