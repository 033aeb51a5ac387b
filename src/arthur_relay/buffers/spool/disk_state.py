"""Whether the disk takes writes now, and when to try again after it did not."""

from arthur_relay.encoding.product import RowWords
from arthur_relay.sentences import named
from arthur_relay.system.clocks import Clock
from arthur_relay.system.log_once import LogOnce
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.spool")

RETRY_SECONDS = 1.0
"""The time between attempts to write while the disk is full or fails."""


class DiskState:
    """Remembers the last failure of the disk. Logs the first failure, and the recovery.

    Args:
        clock: Measures the time since a failure.
        words: What the log calls rows.

    Attributes:
        failure: Why rows cannot be written, as a clause, or "" when they can. Any thread.
    """

    def __init__(self, clock: Clock, words: RowWords) -> None:
        self._clock = clock
        self._words = words
        self._failed_at: float | None = None
        self._once = LogOnce()
        self.failure = ""

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failed_at is not None

    def failed_lately(self) -> bool:
        """Return whether it is too soon for another attempt."""
        failed = self._failed_at
        return failed is not None and self._clock.monotonic() < failed + RETRY_SECONDS

    def fail(self, error: object) -> None:
        """Note that an attempt failed."""
        self.failure = f"it can't be used ({error})"
        if self._once.is_first("failure"):
            logger.warning(
                "arthur-relay: the spool can't be used (%s); new %s wait in memory: make room on"
                " the disk, or give another %s",
                error,
                self._words.many,
                named("spool_dir"),
            )
        self._failed_at = self._clock.monotonic()

    def clear(self) -> None:
        """Forget the failure, because nothing is left to be written."""
        self._failed_at, self.failure = None, ""

    def on_written(self) -> None:
        """Note that an attempt succeeded."""
        self.clear()
        if self._once.reset("failure"):
            logger.info("arthur-relay: the spool can be written again")

    def allow_attempt(self) -> None:
        """Allow another attempt at once."""
        self._failed_at = None
