"""The application of docs/hosts.md under WSGI servers."""

from __future__ import annotations

import json
import os
import threading
from importlib import import_module
from typing import TYPE_CHECKING

from tests.hosts import hosted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment


page = import_module("wsgi")


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Log one inference; `/hang` never answers, `/safe` answers when the spool has it."""
    assert list(page.application(environ, lambda *_: None)) == [b"answer"]
    match environ["PATH_INFO"]:
        case "/hang":
            while True:
                threading.Event().wait(0.05)
        case "/safe":
            while (stats := hosted.handler.relay.stats()).spooled < stats.pending:
                threading.Event().wait(0.005)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid()}).encode()]
