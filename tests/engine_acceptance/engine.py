"""An Engine as its users see it: by its own API, and not by the relay."""

from __future__ import annotations

import collections
import secrets
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

TRACES = "/api/v1/traces"
PROTOBUF = "application/x-protobuf"
SECONDS = 30.0


@dataclass(frozen=True)
class Engine:
    """An Engine's address, a key that may write and read, and a task for tests."""

    url: str
    key: str
    task_id: str

    def post(self, body: bytes, **headers: str) -> httpx.Response:
        """Post spans, as an exporter does."""
        sent = {"Authorization": f"Bearer {self.key}", "Content-Type": PROTOBUF}
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        return httpx.post(f"{self.url}{TRACES}", content=body, headers=sent, timeout=SECONDS)

    def get(self, path: str, **query: Any) -> Any:
        """Ask for something that is there."""
        answer = httpx.get(
            f"{self.url}{TRACES}{path}",
            params=query,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=SECONDS,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def spans(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        """Return what is stored of spans with some ids, each as often as it is stored."""
        query = {"task_ids": self.task_id, "span_ids": list(ids), "page_size": 50}
        found: list[dict[str, Any]] = self.get("/spans", **query)["spans"]
        return found

    def stored(self, row_ids: Iterable[str]) -> collections.Counter[str]:
        """Return how often the spans of some rows are stored."""
        wanted = set(row_ids)
        spans = self.spans(row_id.partition("-")[2] for row_id in wanted)
        found = (f"{span['trace_id']}-{span['span_id']}" for span in spans)
        return collections.Counter(row_id for row_id in found if row_id in wanted)

    def trace(self, trace_id: str) -> dict[str, Any]:
        """Return a trace."""
        found: dict[str, Any] = self.get(f"/{trace_id}")
        return found

    def judgements(self, trace_id: str) -> list[tuple[int, str | None]]:
        """Return what people said of a trace."""
        return [
            (each["annotation_score"], each.get("annotation_description"))
            for each in self.trace(trace_id).get("annotations") or ()
            if each.get("annotation_type", "human") == "human"
        ]


def flat(tree: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the spans of a tree."""
    return [span for each in tree for span in (each, *flat(each.get("children") or []))]


def some_number() -> int:
    """Return a number that makes an id which no test before has used."""
    return secrets.randbits(62) + 1


class AnswerLoser:
    """Stands before an Engine, and loses its answer to the first spans.

    Attributes:
        url: Its address.
        lost: Answers that were lost.
        posts: Requests with spans that it passed on.
        questions: Requests for spans.
    """

    def __init__(self, engine: Engine) -> None:
        self.lost = self.posts = self.questions = 0
        loser = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                loser.questions += "/spans?" in self.path
                self._pass_on(b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                is_first = self.path.endswith(TRACES) and len(body) > 2 and not loser.lost
                loser.posts += self.path.endswith(TRACES) and len(body) > 2
                self._pass_on(body, is_lost=is_first)

            def _pass_on(self, body: bytes, *, is_lost: bool = False) -> None:
                names = ("Authorization", "Content-Type")
                headers = {name: self.headers[name] for name in names if self.headers[name]}
                answer = httpx.request(
                    self.command,
                    engine.url + self.path,
                    content=body,
                    headers=headers,
                    timeout=SECONDS,
                )
                if is_lost:
                    loser.lost += 1
                    self.close_connection = True
                    return
                self.send_response(answer.status_code)
                self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
