"""Exits that run no `atexit` callbacks: the children of multiprocessing, billiard and Celery."""

import sys
from collections.abc import Callable
from functools import partial

MULTIPROCESSING = ("multiprocessing.util", "billiard.util")
"""The second is Celery's fork of the first."""


def register_exit_hooks(owner: object, close: Callable[[], None]) -> None:
    """Have a function called when this process exits, if `atexit` will not see to it.

    Nothing is imported for it: what is not loaded has not started this process.

    Args:
        owner: For as long as it lives.
        close: May be called more than once.
    """
    for util in filter(None, map(sys.modules.get, MULTIPROCESSING)):
        finalize = partial(util.Finalize, None, close, exitpriority=100)
        finalize()
        # A process begins with forgetting these, after its main module was imported: that may have
        # made a relay already.
        util.register_after_fork(owner, lambda _owner, finalize=finalize: finalize())
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        # The processes of Celery's pool end by `os._exit`, and say so by this only.
        signals.worker_process_shutdown.connect(
            partial(_shut_down, close), weak=False, dispatch_uid=__name__
        )


def _shut_down(close: Callable[[], None], **_: object) -> None:
    close()
