"""From capture to acknowledgement: inlet, batcher, retry, worker, and the thread they run in."""
