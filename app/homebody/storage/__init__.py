"""The database: connections, transactions, statements, caches and the disk below."""
