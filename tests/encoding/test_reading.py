"""Providers' objects are read by key or attribute, whatever they do when they are asked."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from arthur_relay.encoding.reading import has_none_of, read_first
from arthur_relay.encoding.token_counts import cached_tokens, has_details
from arthur_relay.inference import GenerationSnapshot


class Odd:
    """A key of the same hash as a text, which nothing can be compared with."""

    def __hash__(self) -> int:
        return hash("b")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError


class Usage:
    """Counts as attributes."""

    b = 2


@pytest.mark.parametrize(
    ("holder", "expected"),
    [
        ({"b": 1, "c": 2}, 1),
        ({"a": None, "c": 2}, 2),
        ({"d": 1}, None),
        ({}, None),
        (MappingProxyType({"c": 3}), 3),
        (Usage(), 2),
        (None, None),
        ({Odd(): 1, "c": 2}, 2),
    ],
)
def test_the_first_value_is_found_that_there_is(holder: Any, expected: Any) -> None:
    assert read_first(holder, ("a", "b", "c")) == expected


def test_only_a_dict_is_known_to_have_none() -> None:
    assert has_none_of({"d": 1}, ("a", "b"))
    assert not has_none_of({"b": None}, ("a", "b"))
    assert not has_none_of({Odd(): 1}, ("b",))
    assert not has_none_of(Usage(), ("a",))
    assert not has_none_of(MappingProxyType({}), ("a",))


def test_details_are_seen_wherever_a_provider_puts_them() -> None:
    generation = GenerationSnapshot("text")
    generation.usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    assert not has_details(generation)
    generation.facts = ({"token_usage": {"prompt_tokens_details": {"cached_tokens": 7}}},)
    assert has_details(generation)
    assert cached_tokens(generation) == 7
