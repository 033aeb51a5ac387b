"""What is kept of an exception."""

from __future__ import annotations

from typing import Any

from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand
from langgraph.types import Command

from arthur_relay.capture.exceptions import (
    MAX_EARLIER,
    MAX_FRAMES,
    is_control_flow,
    snapshot_exception,
)
from arthur_relay.inference import MAX_ERROR_CHARACTERS, ExceptionSnapshot


def raised(error: Exception, depth: int = 1) -> Exception:
    def deeper(left: int) -> None:
        if left:
            deeper(left - 1)
        raise error

    try:
        deeper(depth)
    except type(error) as found:
        return found
    raise AssertionError


def test_names_text_and_places_are_kept() -> None:
    found = snapshot_exception(raised(ValueError("x" * 5_000)))
    assert found.type_name == "ValueError"
    assert len(found.message) == MAX_ERROR_CHARACTERS
    assert [function for _, _, function in found.frames] == ["raised", "deeper", "deeper"]


def test_frames_are_bounded_to_the_innermost() -> None:
    found = snapshot_exception(raised(ValueError("x"), depth=200))
    assert len(found.frames) == MAX_FRAMES
    assert {function for _, _, function in found.frames} == {"deeper"}


class OddError(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        raise RuntimeError


def test_an_error_that_has_no_text() -> None:
    found = snapshot_exception(OddError())
    assert found.message == ""
    assert found.type_name == f"{__name__}.OddError"


def test_control_flow_of_langgraph_is_no_error() -> None:
    assert is_control_flow(GraphInterrupt(()))
    assert is_control_flow(GraphBubbleUp())
    assert is_control_flow(ParentCommand(Command()))
    assert not is_control_flow(ValueError())


def test_what_came_before_is_kept_and_bounded() -> None:
    first = latest = ValueError("0")
    for number in range(1, MAX_EARLIER + 3):
        before, latest = latest, ValueError(str(number))
        latest.__context__ = before
    first.__context__ = latest  # in a circle
    found: ExceptionSnapshot | None = snapshot_exception(latest)
    messages = []
    while found is not None:
        messages.append(found.message)
        found = found.earlier
    assert messages == [str(MAX_EARLIER + 2 - number) for number in range(MAX_EARLIER + 1)]


class UnaskableError(ValueError):
    """An error that does not let itself be asked."""

    __module__ = None  # type: ignore[assignment] # on purpose

    @property
    def __notes__(self) -> Any:  # type: ignore[override] # on purpose
        raise RuntimeError("don't")

    @property
    def __cause__(self) -> Any:  # type: ignore[override] # on purpose
        raise RuntimeError("don't")


def test_an_error_whose_facts_raise() -> None:
    found = snapshot_exception(UnaskableError("no"))
    assert (found.message, found.notes, found.earlier) == ("no", [], None)
    assert not is_control_flow(UnaskableError("no"))
