"""Prepares the process before anything else: its standard descriptors, and its end by SIGTERM.

It imports next to nothing, because it runs before the slow imports.
"""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def prepare_process() -> None:
    """Repair what the process inherited from its parent. Called once, on the main thread."""
    _open_standard_descriptors()
    if os.getpid() == 1:
        _end_on_sigterm()


def _open_standard_descriptors() -> None:
    """Open those that are closed, because the next file would get their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
            os.set_inheritable(number, True)  # noqa: FBT003 - it has no name


def _end_on_sigterm() -> None:
    """Make SIGTERM end process 1: there the kernel ignores signals that have no handler."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    # In a finaliser Python can't raise `SystemExit`; a second SIGTERM ends the process anyway.
    signal.signal(number, _end_at_once)
    sys.exit(128 + number)


def _end_at_once(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)
