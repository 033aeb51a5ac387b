"""The HTTP server under the daemon and the sandbox."""
