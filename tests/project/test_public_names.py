"""The public names, and what importing them loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

import arthur_relay
import arthur_relay.sandbox
import arthur_relay.testing


PUBLIC = """
ArthurCallbackHandler
Attempt
Attribute
Batch
BuiltInRedactor
ConfigurationError
Connect
CredentialsError
DeadLetter
Destination
DropReason
Durability
Failure
FlushResult
Health
HealthStatus
History
Inference
ModelError
ModelSchema
Outcome
Overflow
Relay
RelayError
RelaySettings
Row
RowKind
Schema
SettingsError
SpoolError
Stats
Trace
UnreachableError
Verdict
exit_on_sigterm
lifespan
""".split()
SANDBOX = """
ArthurSandbox
Fault
Faults
InvalidModelError
Kind
ModelExistsError
RecordedRequest
Role
Route
attribute
demo_attributes
""".split()
TESTING = """
ArthurSandbox
LLM_ATTRIBUTES
MemoryDestination
MemoryEngine
arthur_memory
arthur_memory_engine
arthur_sandbox
memory_engine
memory_relay
""".split()


def test_the_names_that_users_may_rely_on_are_these() -> None:
    """To remove or to rename one is a change for the changelog, and for the version's number."""
    assert arthur_relay.__all__ == PUBLIC
    assert arthur_relay.sandbox.__all__ == SANDBOX
    assert sorted(arthur_relay.testing.__all__) == TESTING


def test_public_names() -> None:
    assert sorted(arthur_relay.__all__) == arthur_relay.__all__
    for name in arthur_relay.__all__:
        assert getattr(arthur_relay, name).__name__ == name
    assert dir(arthur_relay) == arthur_relay.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = arthur_relay.nothing


def test_importing_the_handler_loads_nothing_that_is_slow() -> None:
    slow = "print([m for m in ('httpx', 'pydantic_settings', 'starlette') if m in sys.modules])"
    ours, theirs = (
        subprocess.run(
            [sys.executable, "-c", f"import sys; {line}; {slow}"],
            capture_output=True,
            text=True,
            check=True,
        )
        for line in (
            "from arthur_relay import ArthurCallbackHandler",
            "import langchain_core.callbacks",
        )
    )
    assert ours.stdout == theirs.stdout
