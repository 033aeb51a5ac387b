"""Arthur Engine's own SDK, unchanged, as a client."""
