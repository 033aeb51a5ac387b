"""The application that the servers of these tests run: that of docs/hosts.md, which is asked here.

Each process notes what it captures before it does, and at its end what its relay says of it.
"""

from __future__ import annotations

import atexit
import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

NOTES = Path(os.environ["HOSTED_NOTES"])


def report() -> None:
    """Note what the relay of this process says."""
    stats = handler.relay.stats()
    note = {
        "captured": stats.captured,
        "delivered": stats.delivered,
        "pending": stats.pending,
        "lost": {**stats.dropped, **stats.rejected_reasons},
        "restarts": stats.worker_restarts,
        "unmatched": stats.unmatched_events,
    }
    path = NOTES / f"{os.getpid()}.new"
    path.write_text(json.dumps(note), encoding="utf-8")
    path.rename(path.with_suffix(".json"))  # a reader must not find half of it


class Noting(BaseCallbackHandler):
    """Notes the ids of runs."""

    run_inline = True  # and so before the relay's own handler

    def on_chat_model_start(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """Note that a run begins."""
        with (NOTES / f"{os.getpid()}.captured").open("a", encoding="utf-8") as file:
            file.write(f"{run_id}\n")


atexit.register(report)  # before the relay is made, so that it is called after the relay's own

_page = import_module("llm")  # of docs/hosts.md, put there by tests/hosts/conftest.py
handler, model = _page.handler, _page.model
model.callbacks.insert(0, Noting())


def log(count: int = 1) -> None:
    """Make some calls of the model."""
    for _ in range(count):
        model.invoke("prompt")


if count := int(os.environ.get("HOSTED_LOGS_AT_IMPORT", "0")):
    log(count)
