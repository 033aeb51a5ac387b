"""Functions that are settings: hashable, so that equal settings are equal; not coroutines."""

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any


class HashableFunction:
    """A function that can't be hashed, such as an instance of a dataclass; equal by identity."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, value: Any) -> Any:
        """Return what the function does."""
        return self.function(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HashableFunction) and other.function is self.function

    def __hash__(self) -> int:
        return id(self.function)

    def __repr__(self) -> str:
        return repr(self.function)


def read_function(given: Any) -> Callable[[Any], Any]:
    """Return a function of one argument as a setting can hold it.

    Raises:
        ValueError: It is no function, or one that would have to be awaited.
    """
    if not callable(given) or iscoroutinefunction(given):
        raise ValueError("not a function")
    try:
        hash(given)
    except TypeError:
        return HashableFunction(given)
    return given  # type: ignore[no-any-return] # callable() does not say of what
