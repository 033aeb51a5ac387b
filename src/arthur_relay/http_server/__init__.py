"""The HTTP server under the daemon and the sandbox; it knows neither of them."""
