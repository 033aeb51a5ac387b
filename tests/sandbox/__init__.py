"""Tests of the sandbox: real sockets, a real server."""
