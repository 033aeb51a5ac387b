"""The places in other packages that the table names are there."""

from __future__ import annotations

import pydoc
from importlib.metadata import version

import pytest

from .environment import versions
from .not_handed_over import NOT_HANDED_OVER


@pytest.mark.parametrize(
    "place", sorted({place for entry in NOT_HANDED_OVER for place in entry.place.split(", ")})
)
def test_the_place_is_there(place: str) -> None:
    assert pydoc.locate(place) is not None


@pytest.mark.parametrize("package", versions())
def test_the_version_is_the_pinned_one(package: str) -> None:
    assert version(package) == versions()[package]
