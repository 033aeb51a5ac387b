"""Runs gateways and workers of a fleet in processes of their own."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import httpx

from tests.daemon.process import DaemonProcess, row
from tests.waiting import SECONDS, wait_for

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.sandbox import ArthurSandbox

SETTLED = ("delivered", "rejected", "dropped")


class Fleet:
    """Gateways and workers over one broker and one sandbox; ends what it started.

    Args:
        sandbox: Where rows go.
        directory: For logs.
        broker: The settings of the broker.
        variables: More of each process's environment.
        for_engine: Whether rows go to the sandbox's Engine.
    """

    def __init__(
        self,
        sandbox: ArthurSandbox,
        directory: Path,
        broker: BrokerSettings,
        variables: dict[str, str] | None = None,
        *,
        for_engine: bool = False,
    ) -> None:
        self._sandbox = sandbox
        self._for_engine = for_engine
        self._directory = directory
        self._variables = {**broker_variables(broker), **(variables or {})}
        self._stack = ExitStack()
        self.members: list[DaemonProcess] = []

    def start(
        self, role: str, count: int = 1, *, variables: dict[str, str] | None = None
    ) -> list[DaemonProcess]:
        """Start gateways or workers, and wait until they are ready.

        Args:
            role: Which of the two.
            count: How many.
            variables: More of their environment.
        """
        started = [
            self._stack.enter_context(
                DaemonProcess(
                    self._sandbox,
                    self._directory,
                    "--role",
                    role,
                    variables={**self._variables, **(variables or {})},
                    for_engine=self._for_engine,
                )
            )
            for _ in range(count)
        ]
        self.members += started
        for each in started:
            each.wait_until_ready()
        return started

    def gateway(self) -> httpx.Client:
        """Start a gateway, and return a client for it."""
        (found,) = self.start("gateway")
        return found.client()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


def broker_variables(broker: BrokerSettings) -> dict[str, str]:
    """Return what a gateway or a worker needs in its environment."""
    given = broker.model_dump(exclude_unset=True, mode="json")
    return {
        "ARTHUR_RELAY_SPOOL_DIR": "",
        **{f"ARTHUR_RELAY_BROKER_{name.upper()}": str(value) for name, value in given.items()},
    }


def send(client: httpx.Client, model_id: str, ids: list[str]) -> list[str]:
    """Send rows in one request; returns those that were accepted."""
    answer = client.post(f"/api/v3/models/{model_id}/inferences", json=[row(each) for each in ids])
    return ids if answer.status_code == 207 else []


def counts(process: DaemonProcess) -> dict[str, Any]:
    """Return what a worker counts, once that adds up."""
    found: dict[str, Any] = process.client().get("/status").json()["rows"]
    settled = sum(found[name] for name in (*SETTLED, "returned", "pending"))
    assert found["captured"] == settled, found
    return found


def read_counts(process: DaemonProcess) -> Counter[str]:
    """Return all that a gateway or a worker counts of rows.

    `captured` and what became of these; of a gateway `intake_accepted` and other answers; of a
    worker `redelivered` rows, the `packets` that it has in hand, and whether it is `held`. And
    the `connections` of clients.

    Raises:
        httpx.HTTPError: It does not answer.
    """
    with httpx.Client(transport=process.transport(), base_url="http://localhost") as client:
        status = client.get("/status", timeout=1.0).json()
        metrics = client.get("/metrics", timeout=1.0).text
    rows = {name: found for name, found in status["rows"].items() if isinstance(found, int)}
    rows["connections"] = sum(status["intake"]["connections"].values())
    rows |= {f"intake_{name}": found for name, found in status["intake"]["rows"].items()}
    for name, metric in (
        ("redelivered", "broker_redelivered_rows_total"),
        ("packets", "broker_in_hand_packets"),
        ("held", "broker_held"),
    ):
        if found := re.search(rf"^arthur_relay_{metric} ([0-9.e+]+)$", metrics, re.M):
            rows[name] = int(float(found[1]))
    return Counter(rows)


def at_arthur(sandbox: ArthurSandbox) -> Counter[str]:
    """Return how often each row arrived."""
    return Counter(each["partner_inference_id"] for each in sandbox.inferences)


def wait_until_all_arrived(
    sandbox: ArthurSandbox, ids: list[str], seconds: float = SECONDS
) -> None:
    """Wait until Arthur has rows."""
    wait_for(lambda: at_arthur(sandbox).keys() >= set(ids), seconds)
