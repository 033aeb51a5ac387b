"""The public names, and what importing them loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

import arthur_relay


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
