"""An opt-in for bare scripts: SIGTERM ends the process like `sys.exit`, so that it flushes."""

import signal
import sys
import threading
from types import FrameType

EXIT_STATUS = 128 + signal.SIGTERM
"""What a shell reports for a process that SIGTERM ended."""


def exit_on_sigterm() -> bool:
    """Make SIGTERM raise `SystemExit` in the main thread; then `finally` blocks and flush run.

    Servers like uvicorn and gunicorn handle SIGTERM by themselves and don't need this. A handler
    that someone else has set is left alone.

    Returns:
        Whether the handler is in place: False outside of the main thread, or when another is.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    present = signal.getsignal(signal.SIGTERM)
    if present is _exit:
        return True
    if present is not signal.SIG_DFL:
        return False
    signal.signal(signal.SIGTERM, _exit)
    return True


def _exit(_number: int, _frame: FrameType | None) -> None:
    # A second SIGTERM must not cut the flush short, nor can it make it longer: it has a deadline.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(EXIT_STATUS)
