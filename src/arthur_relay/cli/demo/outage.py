"""The demo's outage: takes the sandbox away for some seconds, in a thread of its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from arthur_relay.cli.demo.recording import Recording
    from arthur_relay.cli.demo.view import View
    from arthur_relay.sandbox import ArthurSandbox


class Outage:
    """One outage. A context manager: leaving it ends the outage, if it has not ended yet.

    Args:
        sandbox: What is taken away; connections to it are refused then.
        recording: Is told when it goes and when it is back.
        seconds: How long it stays away.
    """

    def __init__(self, sandbox: ArthurSandbox, recording: Recording, *, seconds: float) -> None:
        self._sandbox = sandbox
        self._recording = recording
        self._seconds = seconds
        self._enough = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._enough.set()
        self.wait()

    def begin(self, view: View) -> None:
        """Take Arthur away, once; returns at once, so that it does not hold up the stream."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(view,), name="demo-outage")
            self._thread.start()

    def wait(self) -> None:
        """Return when the outage is over, or was never begun."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, view: View) -> None:
        self._sandbox.go_away()
        self._recording.gone()
        view.note("Arthur is gone: it refuses connections.")
        self._enough.wait(self._seconds)
        self._sandbox.come_back()
        self._recording.back()
        view.note(f"Arthur is back, after {self._recording.outage_seconds:.1f} s.")
