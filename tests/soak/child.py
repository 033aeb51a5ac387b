"""The process that is killed: captures at a steady rate, and writes down what it captured.

`python -m tests.soak.child RECORDS FIRST RATE SEED` captures the inferences from number FIRST on,
until its standard input is closed; then it delivers what is left, and ends. The relay is set up by
the environment.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from arthur_relay import Relay
from tests.soak.inferences import body_of, digest, id_of, inference
from tests.soak.records import CAPTURED, ENDED, SAFE, Records

LEFT_SECONDS = 60.0
"""How long the delivery of what is left may take."""


@dataclass
class Capturing:
    """One thread that captures; no other one does.

    Attributes:
        relay: Where it captures.
        records: Where it writes that down.
        first: The number that it begins with.
        seed: Of the inferences.
    """

    relay: Relay
    records: Records
    first: int
    seed: int
    _next: int = 0
    _safe: int = 0

    def __post_init__(self) -> None:
        self._next = self._safe = self.first

    def capture(self) -> None:
        """Capture one more."""
        captured = inference(self._next, self.seed)
        assert captured.inference_id == id_of(self._next)
        self.records.add(CAPTURED, self._next, digest(body_of(captured)), time.monotonic())
        self.relay.capture(captured)
        self._next += 1

    def note_what_is_safe(self) -> None:
        """Write down how far all is delivered or in the spool, as `stats()` tells any user.

        What waits and is not on disk yet are the last ones that were captured: the spool takes
        them in their order.
        """
        stats = self.relay.stats()
        safe = self._next - (stats.pending - stats.spooled)
        if safe > self._safe:
            self._safe = safe
            self.records.add(SAFE, safe, time.monotonic())


def wait_for_the_end(stop: threading.Event) -> None:
    """Set the event when standard input is closed."""
    sys.stdin.read()
    stop.set()


def main() -> None:
    """Capture until standard input is closed."""
    path, first, rate, seed = sys.argv[1:]
    stop = threading.Event()
    threading.Thread(target=wait_for_the_end, args=(stop,), daemon=True).start()
    relay = Relay.from_env()
    records = Records(Path(path))
    capturing = Capturing(relay, records, int(first), int(seed))
    due = time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        capturing.note_what_is_safe()
        capturing.capture()
        due += 1 / float(rate)
    relay.flush(LEFT_SECONDS)
    end = time.monotonic() + LEFT_SECONDS
    while relay.stats().pending and time.monotonic() < end:  # what earlier processes left
        relay.flush(1.0)
    relay.close()
    records.add(ENDED, relay.stats()._asdict(), time.monotonic())


if __name__ == "__main__":
    main()
