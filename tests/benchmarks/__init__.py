"""The cost of arthur-relay on the caller, measured beside its peers."""
