"""Breaks promises on purpose, in what the server writes down: a soak that does not tell is none."""

from __future__ import annotations

from enum import StrEnum

Rows = list[list[str]]


class Sabotage:
    """Does each of some kinds of damage once, to rows that are stored.

    Args:
        kinds: Of `Damage`, in the order in which they are done, one in a request.

    Attributes:
        done: The id that each kind of damage was done to.
    """

    def __init__(self, kinds: list[str]) -> None:
        self._left = [Damage(kind) for kind in kinds]
        self.done: dict[str, str] = {}

    def spoil(self, rows: Rows, stored: list[bool]) -> tuple[Rows, list[bool]]:
        """Return what is written down in place of the rows of a request, each `[id, digest]`."""
        if not self._left or not all(stored):
            return rows, stored
        damage = self._left.pop(0)
        (row_id, row_digest), *others = rows
        self.done[damage] = row_id
        match damage:
            case Damage.DROP:
                return rows, [False, *stored[1:]]
            case Damage.DOUBLE:
                return [rows[0], *rows], [True, *stored]
            case Damage.ALTER:
                return [[row_id, row_digest[::-1]], *others], stored
            case Damage.INVENT:
                self.done[damage] = f"{row_id}-invented"
                return [[f"{row_id}-invented", row_digest], *rows], [True, *stored]


class Damage(StrEnum):
    """What can be done to a row."""

    DROP = "drop"
    """It is acknowledged, and was not stored."""
    DOUBLE = "double"
    """It is stored twice."""
    ALTER = "alter"
    """It is stored with other bytes."""
    INVENT = "invent"
    """One is stored beside it that was never captured."""
