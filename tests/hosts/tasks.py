"""The application of docs/hosts.md under Celery; as a command, it sends tasks to itself."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

from celery.signals import worker_process_shutdown

from tests.hosts import hosted

broker = Path(os.environ["HOSTED_NOTES"]) / "broker"
broker.mkdir(exist_ok=True)

page = import_module("tasks")
application = page.app
application.conf.update(
    broker_url="filesystem://",
    broker_transport_options={
        "data_folder_in": str(broker),
        "data_folder_out": str(broker),
        "control_folder": str(broker),
    },
    worker_prefetch_multiplier=1,
)


@application.task(name="log")  # type: ignore[untyped-decorator] # Celery has no types
def log() -> None:
    """Log one inference; two where threads are greenlets, one of them in a loop of asyncio's."""
    if "HOSTED_GREEN" in os.environ:
        from tests.hosts import green

        green.use_asyncio()
    assert page.answer("prompt") == "answer"


@worker_process_shutdown.connect(weak=False)  # type: ignore[untyped-decorator] # as above
def report(**_: object) -> None:
    """Note what became of it: these processes run no `atexit` callbacks."""
    hosted.report()


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        application.send_task("log")
    os._exit(0)  # not a host: nothing to note
