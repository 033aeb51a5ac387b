"""Many threads at once, for what has to stand them."""

from __future__ import annotations

import sys
import threading
from typing import Any

THREADS = 16


def in_threads(function: Any) -> None:
    """Call a function in many threads at once, which switch as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=function, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
