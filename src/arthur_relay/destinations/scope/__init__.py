"""Arthur Scope: REST, JSON rows."""
