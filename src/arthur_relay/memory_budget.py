"""Who may use how much of `queue_bytes`: integers only, and no lock, for callers ask it too.

The capture queue and the open runs have shares of their own. Either may take more for a while, for
large prompts, as long as encoded rows and captures that wait for a schema leave bytes free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from arthur_relay.settings import RelaySettings


class HoldsBytes(Protocol):
    """Something whose bytes count."""

    @property
    def size(self) -> int:
        """The bytes that it holds now, as accounted. Any thread."""
        ...


@dataclass(frozen=True, slots=True)
class _Nothing:
    size: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class MemoryBudget:
    """The bytes of one relay. Any thread may ask; each user is set once, by who makes it.

    Attributes:
        buffer_bytes: The share of rows and of captures that wait for a schema.
        queue_bytes: The share of the capture queue.
        open_runs_bytes: The share of the open runs.
        open_runs: The open runs.
        queue: The capture queue.
        awaiting: The captures that wait for a schema.
        rows: The buffer.
    """

    buffer_bytes: int = 0
    queue_bytes: int = 0
    open_runs_bytes: int = 0
    open_runs: HoldsBytes = _Nothing()
    queue: HoldsBytes = _Nothing()
    awaiting: HoldsBytes = _Nothing()
    rows: HoldsBytes = _Nothing()

    @classmethod
    def of(cls, settings: RelaySettings) -> MemoryBudget:
        """Return the budget that the settings ask for."""
        return cls(
            buffer_bytes=settings.buffer_bytes,
            queue_bytes=settings.capture_queue_bytes,
            open_runs_bytes=settings.open_runs_bytes,
        )

    @property
    def over_share(self) -> int:
        """Bytes that the capture queue and the open runs take beyond their shares."""
        queue = max(0, self.queue.size - self.queue_bytes)
        return queue + max(0, self.open_runs.size - self.open_runs_bytes)

    @property
    def buffered(self) -> int:
        """Bytes of rows and of captures that wait for a schema."""
        return self.rows.size + self.awaiting.size

    @property
    def free(self) -> int:
        """Bytes that nobody takes; below 0 when more is taken than there is."""
        return self.buffer_bytes - self.buffered - self.over_share
