"""The environment of a test: nothing about Arthur but what the test says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def forget_arthur(monkeypatch: pytest.MonkeyPatch, *others: str) -> None:
    """Remove the variables that a relay reads, until the test ends.

    Args:
        monkeypatch: Brings them back.
        others: How the names of more variables begin that are removed.
    """
    for name in list(os.environ):
        if name.startswith(("ARTHUR_", *others)) or name == "VERIFY_SSL":
            monkeypatch.delenv(name)
