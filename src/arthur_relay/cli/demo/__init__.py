"""`arthur-relay demo`: a conversation that streams on while Arthur goes away and comes back."""

from arthur_relay.cli.demo.run import run_demo

__all__ = ["run_demo"]
