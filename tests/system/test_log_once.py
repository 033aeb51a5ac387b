"""LogOnce: what was logged is remembered, until it may be logged again."""

from __future__ import annotations

import pytest

from arthur_relay.system.log_once import LogOnce

pytestmark = pytest.mark.one_python


def test_each_kind_is_logged_once() -> None:
    once = LogOnce()
    assert [once.is_first(kind) for kind in ("a", "a", "b", "a", None, None)] == [
        *[True, False, True],
        *[False, True, False],
    ]


def test_after_a_reset_it_is_logged_again() -> None:
    once = LogOnce()
    assert not once.reset("a")
    assert once.is_first("a")
    assert once.reset("a")
    assert not once.reset("a")
    assert once.is_first("a")


def test_only_so_many_kinds_are_remembered() -> None:
    once = LogOnce(most=2)
    assert all(once.is_first(kind) for kind in "abc")
    assert [once.is_first(kind) for kind in "cba"] == [False, False, True], "a was forgotten"
