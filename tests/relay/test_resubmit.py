"""A dead letter is sent once more to the product that it is for, and to no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay import ConfigurationError, Relay, RelaySettings
from arthur_relay.testing import MemoryDestination, MemoryEngine
from tests.cli.engine import scope_letter, span_letter

if TYPE_CHECKING:
    from collections.abc import Iterator

from arthur_relay.sandbox import ArthurSandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ArthurSandbox]:
    with ArthurSandbox() as running:
        yield running


@pytest.mark.parametrize("destination", [MemoryDestination, MemoryEngine])
def test_a_letter_for_the_other_product_is_refused(
    destination: Any, sandbox: ArthurSandbox
) -> None:
    letters = [scope_letter(sandbox), span_letter(sandbox)]
    if destination is MemoryEngine:
        letters.reverse()
    ours, others = letters
    with Relay(destination(), settings=RelaySettings(flush_interval_seconds=0)) as relay:
        relay.resubmit(ours)
        with pytest.raises(ConfigurationError, match="is a row for Arthur"):
            relay.resubmit(others)
        assert relay.flush(10).delivered == 1
