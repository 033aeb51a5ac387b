"""Lets `python -m arthur_relay.cli` do what the command `arthur-relay` does."""

from arthur_relay.cli import main

main()
