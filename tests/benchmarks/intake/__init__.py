"""The durable intake: a daemon under load, beside SQLite that commits the same rows by itself."""
