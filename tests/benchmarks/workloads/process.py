"""What every measuring process can do, whatever is measured."""

from __future__ import annotations

import gc
from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.workloads.workload import Commands


def open_peer(bench: Bench, *, settings: dict[str, Any]) -> dict[str, bool]:
    """Open the peer.

    What is there by then is taken away from the collector, as many servers do: now and then it
    would go through all that was imported, in the midst of someone's repetition, for longer than
    the repetition takes, and for longer with the peers that import more.
    """
    bench.open(settings)
    gc.collect()
    gc.freeze()
    return {"delivers": bench.peer.delivers}


def flush(bench: Bench, *, flush_seconds: float) -> dict[str, float]:
    """Have the peer deliver what it holds."""
    return {"seconds": bench.flush(flush_seconds)}


COMMANDS: Commands = {"open": open_peer, "flush": flush}
