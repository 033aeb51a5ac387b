"""One local HTTP server, in a process of its own, that every peer delivers to and that counts."""

from tests.benchmarks.sink.process import Sink
from tests.benchmarks.sink.state import Counts, Mode

__all__ = ["Counts", "Mode", "Sink"]
