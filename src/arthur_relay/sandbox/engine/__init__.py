"""The sandbox as an Arthur Engine: it answers for traces, tasks and annotations as a real one."""

from arthur_relay.sandbox.engine.keys import Role

__all__ = ["Role"]
