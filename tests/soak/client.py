"""The fleet's clients: programs that speak Arthur's API, and know nothing of a relay.

`python -m tests.soak.client DIRECTORY THREADS SEED URL...` reads orders from its standard input, a
line each: how many rows to send, and how many a second. It sends them in requests of one model, and
repeats a request that was not acknowledged at the next address, as behind a load balancer. When all
are acknowledged it prints a line. When its input is closed, it ends after the requests that it is
at.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

import httpx

from tests.soak.inferences import body_of, digest, inference
from tests.soak.records import CAPTURED, ENDED, REPEATED, SAFE, Records

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS: Final = 8
"""The models that the inferences are of."""

MOST_ROWS: Final = 100
"""In one request."""

ANSWER_SECONDS: Final = 30.0
"""How long a request waits: as long as a gateway may take."""

LONGEST_PAUSE_SECONDS: Final = 1.0
"""Before a request is repeated; shorter than what is asked for, so that the soak goes on."""


@dataclass
class Numbers:
    """Gives out numbers, each once. Any thread."""

    next: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, count: int) -> range:
        """Return so many of them."""
        with self.lock:
            found = range(self.next, self.next + count)
            self.next = found.stop
        return found


@dataclass
class Client:
    """One thread that sends.

    Attributes:
        records: Where it writes down what it sends, before it does, and what was acknowledged.
        numbers: Of the inferences, for all threads.
        seed: Of the inferences.
        addresses: The gateways, again and again.
        stop: Set when it is to end.
        draw: Randomness.
    """

    records: Records
    numbers: Numbers
    seed: int
    addresses: Iterator[str]
    stop: threading.Event
    draw: random.Random
    counts: dict[str, int] = field(
        default_factory=lambda: {"acknowledged": 0, "repeated": 0, "refused": 0, "broken": 0}
    )

    def send(self, rows: int, rate: float) -> None:
        """Send so many rows, at a rate."""
        due = time.monotonic()
        with httpx.Client(timeout=ANSWER_SECONDS, verify=False) as http:
            while rows and not self.stop.wait(max(0.0, due - time.monotonic())):
                some = self.draw.randint(1, max(1, min(rows, MOST_ROWS, round(rate))))
                numbers = self.numbers.take(some)
                bodies = [body_of(inference(each, self.seed)) for each in numbers]
                for number, body in zip(numbers, bodies, strict=True):
                    self.records.add(CAPTURED, number, digest(body), time.monotonic())
                if not self._send(http, b"[" + b",".join(bodies) + b"]", numbers):
                    return
                self.records.add(SAFE, numbers.stop, time.monotonic())
                self.counts["acknowledged"] += some
                rows -= some
                due += some / rate

    def _send(self, http: httpx.Client, content: bytes, numbers: range) -> bool:
        """Send one request until it is acknowledged. Returns False when it is to end before."""
        path = f"/api/v3/models/soak-{self.draw.randrange(MODELS)}/inferences"
        headers = {"Authorization": "soak", "Content-Type": "application/json"}
        for attempt in count():
            if attempt:
                self.records.add(REPEATED, numbers.start, numbers.stop, time.monotonic())
                self.counts["repeated"] += len(numbers)
            pause = 0.05 * 2 ** min(attempt, 5)
            try:
                answer = http.post(next(self.addresses) + path, content=content, headers=headers)
            except httpx.HTTPError:
                self.counts["broken"] += 1
            else:
                if answer.status_code == httpx.codes.MULTI_STATUS:
                    found = [each["status"] for each in json.loads(answer.content)["results"]]
                    assert found == [200] * len(numbers), found
                    return True
                assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
                self.counts["refused"] += 1
                pause = float(answer.headers.get("Retry-After", pause))
            if self.stop.wait(min(pause, LONGEST_PAUSE_SECONDS)):
                break
        return False


def main() -> None:
    """Obey until standard input is closed."""
    directory, threads, seed, *urls = sys.argv[1:]
    stop, numbers = threading.Event(), Numbers()
    clients = [
        Client(
            Records(Path(directory, f"client-{number}.jsonl")),
            numbers,
            int(seed),
            cycle(urls[number % len(urls) :] + urls[: number % len(urls)]),
            stop,
            random.Random(f"{seed} client {number}"),
        )
        for number in range(int(threads))
    ]
    orders: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=listen, args=(orders, stop), daemon=True).start()
    with ThreadPoolExecutor(len(clients)) as pool:
        while order := orders.get():
            rows, rate = order.split()
            shares = [int(rows) // len(clients)] * len(clients)
            shares[0] += int(rows) % len(clients)
            rates = [float(rate) / len(clients)] * len(clients)
            list(pool.map(Client.send, clients, shares, rates))
            if not stop.is_set():
                print(flush=True)  # noqa: T201 - the answer to the order
    for each in clients:
        each.records.add(ENDED, each.counts, time.monotonic())


def listen(orders: SimpleQueue[str], stop: threading.Event) -> None:
    """Pass orders on; the last one is empty."""
    for line in sys.stdin:
        orders.put(line.strip())
    stop.set()
    orders.put("")


if __name__ == "__main__":
    main()
