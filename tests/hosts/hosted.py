"""The application that the servers of these tests run: it logs by LangChain what it is asked to.

Each process notes what it captures before it does, and at its end what its relay says of it.
"""

from __future__ import annotations

import atexit
import json
import os
from pathlib import Path
from uuid import uuid4

from langchain_core.language_models.fake_chat_models import FakeListChatModel

from arthur_relay import ArthurCallbackHandler

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


atexit.register(report)  # before the relay is made, so that it is called after the relay's own

handler = ArthurCallbackHandler.from_env()
model = FakeListChatModel(responses=["answer"], callbacks=[handler])


def log(count: int = 1) -> dict[str, object]:
    """Make some calls of the model."""
    ids = [uuid4() for _ in range(count)]
    with (NOTES / f"{os.getpid()}.captured").open("a", encoding="utf-8") as file:
        file.writelines(f"{run_id}\n" for run_id in ids)
    for run_id in ids:
        model.invoke("prompt", config={"run_id": run_id})
    return {"pid": os.getpid(), "ids": [str(run_id) for run_id in ids]}


if count := int(os.environ.get("HOSTED_LOGS_AT_IMPORT", "0")):
    log(count)
