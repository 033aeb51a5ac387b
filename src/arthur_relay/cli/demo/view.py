"""How the demo is shown: what a view is told, and the plain one for logs and pipes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from arthur_relay.system.terminal import printable

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from arthur_relay.stats import Stats


class View(Protocol):
    """Shows a demo while it runs. A context manager. Any thread may call `note`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def asked(self, number: int, prompt: str) -> None:
        """The turn of this number, from 1, begins with this prompt."""

    def token(self, text: str) -> None:
        """A piece of the answer came."""

    def answered(self, stats: Stats, tokens_per_second: float) -> None:
        """The turn is over; the relay's counts, and how fast its tokens came."""

    def note(self, text: str) -> None:
        """Something happened that one should know."""

    def refresh(self) -> None:
        """Some time has passed. One thread calls this, several times a second."""


class PlainView:
    """Writes one line for each turn and for each note.

    Args:
        turns: How many turns there will be.
    """

    def __init__(self, turns: int) -> None:
        self._turns = turns
        self._prompt = ""
        self._number = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing has to be undone."""

    def asked(self, number: int, prompt: str) -> None:
        """Remember the turn."""
        self._number, self._prompt = number, prompt

    def token(self, text: str) -> None:
        """Leave the answer out: it would be all that one sees."""

    def answered(self, stats: Stats, tokens_per_second: float) -> None:
        """Write the turn's line."""
        place = f"{self._number:>{len(str(self._turns))}}/{self._turns}"
        counts = "  ".join(f"{name} {value:<3}" for name, value in counters(stats).items())
        pace = f"{tokens_per_second:5.1f} tokens/s"
        self._write(f"{place}  {counts}  {pace}  {excerpt(self._prompt)}")

    def note(self, text: str) -> None:
        """Write the note."""
        self._write(f"-- {text}")

    def refresh(self) -> None:
        """Write nothing: lines can't be taken back."""

    def _write(self, line: str) -> None:
        with self._lock:
            print(printable(line), flush=True)


def counters(stats: Stats) -> dict[str, int]:
    """Return the counts that the demo shows, by name."""
    return {
        "captured": stats.captured,
        "pending": stats.pending,
        "delivered": stats.delivered,
        "retries": stats.retries,
    }


def excerpt(text: str, characters: int = 24) -> str:
    """Return a text's beginning, on one line."""
    line = " ".join(text[: characters * 4].split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"
