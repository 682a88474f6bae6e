"""The tables: columns, constraints and indexes, without behaviour."""
