"""What the server says: which inferences arrived, and over whose connections."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from arthur_relay.sandbox import ArthurSandbox


def arrived(sandbox: ArthurSandbox) -> list[str]:
    """The ids of what arrived, in order."""
    return sorted(row["partner_inference_id"] for row in sandbox.inferences)


def check_arrivals(sandbox: ArthurSandbox, captured: Mapping[str, Collection[str]]) -> None:
    """Check that exactly what was captured arrived, each once, each process by its own sockets.

    Args:
        sandbox: The server.
        captured: By process, the ids that it captured, and has sent itself.
    """
    assert arrived(sandbox) == sorted(name for names in captured.values() for name in names)
    assert sandbox.duplicates == 0
    check_connections(sandbox, captured)


def check_connections(sandbox: ArthurSandbox, captured: Mapping[str, Collection[str]]) -> None:
    """Check that no connection carried what two processes captured."""
    owners = {name: process for process, names in captured.items() for name in names}
    users: dict[int, set[str]] = defaultdict(set)
    for request in sandbox.requests:
        assert request.port
        if request.method == "POST" and request.path.endswith("/inferences"):
            rows = [row["partner_inference_id"] for row in json.loads(request.body)]
            users[request.port] |= {owners[name] for name in rows if name in owners}
    shared = {port: processes for port, processes in users.items() if len(processes) > 1}
    assert not shared, f"connections used by several processes: {shared}"
    assert set().union(*users.values()) == {process for process in captured if captured[process]}
