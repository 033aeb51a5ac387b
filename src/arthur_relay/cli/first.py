"""What a process needs before anything else: standard descriptors, and an end when it is told to.

Imports next to nothing, since it comes before what takes time to import.
"""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def prepare_process() -> None:
    """Make the process one that can't be harmed by how it was started. Once, on the main thread."""
    _open_standard_descriptors()
    if os.getpid() == 1:
        _end_on_sigterm()


def _open_standard_descriptors() -> None:
    """Open those that are closed: else the next file would be taken for one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            os.set_inheritable(number, True)  # noqa: FBT003 - it has no name


def _end_on_sigterm() -> None:
    """See to it that SIGTERM ends process 1, for which the kernel ignores what has no handler."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    # Where Python can't raise it, as in a finaliser, another one does not depend on that.
    signal.signal(number, _end_at_once)
    sys.exit(128 + number)


def _end_at_once(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)
