"""Brings the fixtures `arthur_sandbox`, `arthur_memory` and `arthur_memory_engine`."""

pytest_plugins = ["arthur_relay.testing"]
