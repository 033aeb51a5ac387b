"""The sink counts what it answered, by id, in the form of every peer, and takes its modes on."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
import zstandard

from arthur_relay.destinations.engine.rows import row_body
from arthur_relay.destinations.scope.schema import ModelSchema
from tests.benchmarks.sink import Counts, Mode, Sink

if TYPE_CHECKING:
    from collections.abc import Iterator

INFERENCES = "/api/v3/models/model/inferences"
QUESTIONS = ("/api/v3/users/me", "/api/v3/models/model?id_type=id", "/info", "/api/public/projects")


@pytest.fixture(scope="module")
def running() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def sink(running: Sink) -> Sink:
    running.mode(Mode.UP)
    running.reset()
    return running


@pytest.fixture
def client(sink: Sink) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sink.url, timeout=20) as opened:
        yield opened


def rows(*ids: str, text: str = "Hello") -> bytes:
    return json.dumps(
        [
            {
                "inference_timestamp": "2026-06-07T12:00:13.656449+00:00",
                "partner_inference_id": each,
                "inference_data": {"input_text": text},
            }
            for each in ids
        ]
    ).encode()


def raw_request(body: bytes) -> bytes:
    return f"POST {INFERENCES} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def connect(sink: Sink) -> socket.socket:
    address = urlsplit(sink.url)
    return socket.create_connection((address.hostname, address.port), timeout=20)


def read_answers(connection: socket.socket, wanted: int) -> list[int]:
    """The statuses of so many answers on one connection."""
    statuses = []
    with connection.makefile("rb") as answers:
        for _ in range(wanted):
            statuses.append(int(answers.readline().split()[1]))
            length = 0
            while (line := answers.readline()) != b"\r\n":
                if line.startswith(b"Content-Length:"):
                    length = int(line.split()[1])
            answers.read(length)
    return statuses


def test_records_are_counted_by_id(sink: Sink, client: httpx.Client) -> None:
    first, second = rows("a", "b", "a"), rows("b", "c")
    assert client.post(INFERENCES, content=first).status_code == 207
    assert sink.counts() == Counts(records=2, duplicates=1, requests=1, bytes=len(first))
    client.post(INFERENCES, content=second)
    assert sink.counts() == Counts(3, 2, 2, len(first) + len(second))
    sink.reset()
    assert sink.counts() == Counts(0, 0, 0, 0)
    client.post(INFERENCES, content=first)
    assert sink.counts() == Counts(2, 1, 1, len(first))


def test_arthurs_answer_has_a_result_for_each_row(client: httpx.Client) -> None:
    for wanted in (3, 1, 3):
        answer = client.post(INFERENCES, content=rows(*map(str, range(wanted)))).json()
        assert answer["counts"] == {"success": wanted, "failure": 0, "total": wanted}
        assert [result["status"] for result in answer["results"]] == [200] * wanted


def test_the_engines_answer_counts_the_spans(sink: Sink, client: httpx.Client) -> None:
    probe = client.post("/api/v1/traces", content=b"\x0a\x00").json()
    assert (probe["accepted_spans"], probe["rejected_spans"]) == (0, 0)
    spans = [row_body(b"", b"", b"\x0a\x01a\x12\x01" + number) for number in (b"1", b"2")]
    answer = client.post("/api/v1/traces", content=b"".join(spans)).json()
    assert (answer["total_spans"], answer["accepted_spans"]) == (2, 2)
    assert sink.counts().records == 2
    assert client.get("/api/v2/tasks/7").json()["id"] == "7"


def test_a_text_is_not_taken_for_an_id(sink: Sink, client: httpx.Client) -> None:
    client.post(INFERENCES, content=rows("a", text='{"partner_inference_id": "b"}'))
    assert sink.counts().records == 1


def test_peers_hear_what_they_ask_for(client: httpx.Client) -> None:
    user, model, info, projects = (client.get(path) for path in QUESTIONS)
    assert user.json()["organization_id"]
    schema = ModelSchema.from_json(model.json())
    assert (schema.input_text, schema.output_text) == ("input_text", "output_text")
    assert info.json()["batch_ingest_config"]["use_multipart_endpoint"]
    assert projects.json()["data"]
    assert client.get("/unheard-of").status_code == 404


def test_slow_is_slow_for_each_connection_by_itself(sink: Sink) -> None:
    sink.mode(Mode.SLOW)

    def post(name: int) -> float:
        begun = time.monotonic()
        assert httpx.post(sink.url + INFERENCES, content=rows(str(name))).status_code == 207
        return time.monotonic() - begun

    begun = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        assert min(threads.map(post, range(8))) >= 0.5
    assert time.monotonic() - begun < 8 * 0.5
    assert sink.counts()[:3] == (8, 0, 8)


def test_a_record_counts_when_it_is_answered(sink: Sink) -> None:
    sink.mode(Mode.SLOW)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(sink.url + INFERENCES, content=rows("a"), timeout=0.1)
    # A request that comes later is answered later.
    assert httpx.post(sink.url + INFERENCES, content=rows("b")).status_code == 207
    assert sink.counts()[:3] == (1, 0, 2)


def test_hanging_never_answers(sink: Sink) -> None:
    sink.mode(Mode.HANGING)
    with connect(sink) as connection:
        connection.sendall(raw_request(rows("a")))
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(sink.url + INFERENCES, content=rows("b"), timeout=0.2)
        assert sink.counts()[:3] == (0, 0, 2)
        sink.mode(Mode.UP)
        assert httpx.post(sink.url + INFERENCES, content=rows("c")).status_code == 207
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    assert sink.counts().records == 1


def test_503_counts_requests_and_no_records(sink: Sink, client: httpx.Client) -> None:
    sink.mode(Mode.UNAVAILABLE)
    for path in (INFERENCES, "/runs/multipart", "/v1/traces", "/api/public/otel/v1/traces"):
        assert client.post(path, content=rows("a")).status_code == 503
    assert sink.counts()[:3] == (0, 0, 4)


@pytest.mark.parametrize("mode", [Mode.SLOW, Mode.HANGING, Mode.UNAVAILABLE])
def test_questions_are_answered_in_every_mode(mode: Mode, sink: Sink, client: httpx.Client) -> None:
    sink.mode(mode)
    for path in QUESTIONS:
        assert client.get(path, timeout=20).status_code == 200


def test_refusing_and_up_again_on_the_same_port(sink: Sink, client: httpx.Client) -> None:
    url = sink.url
    client.post(INFERENCES, content=rows("a"))
    with connect(sink) as connection:
        for _ in range(2):
            sink.mode(Mode.REFUSING)
            with pytest.raises((httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError)):
                client.post(INFERENCES, content=rows("b"))
            with pytest.raises(httpx.ConnectError):
                httpx.get(url + "/info")
        assert connection.recv(1) == b""
    for mode in (Mode.UP, Mode.HANGING, Mode.UP):
        sink.mode(mode)
    assert sink.url == url
    assert client.post(INFERENCES, content=rows("b")).status_code == 207
    assert sink.counts()[:3] == (2, 0, 2)


def test_refusing_while_answers_are_late(sink: Sink) -> None:
    sink.mode(Mode.SLOW)
    with connect(sink) as connection:
        connection.sendall(raw_request(rows("a")))
        while not sink.counts().requests:
            pass  # each question waits for its answer
        sink.mode(Mode.REFUSING)
        assert connection.recv(1) == b""
    sink.mode(Mode.SLOW)
    # A request that comes later is answered later.
    assert httpx.post(sink.url + INFERENCES, content=rows("b")).status_code == 207
    assert sink.counts()[:3] == (1, 0, 2)


def test_a_connection_is_kept_for_many_requests(sink: Sink) -> None:
    address = urlsplit(sink.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
    connection.connect()
    ours = connection.sock.getsockname()
    for number in range(3):
        connection.request("POST", INFERENCES, body=rows(str(number)))
        assert len(json.loads(connection.getresponse().read())["results"]) == 1
        assert connection.sock.getsockname() == ours
    connection.close()
    assert sink.counts()[:3] == (3, 0, 3)


def test_a_short_body_after_a_long_one_is_read_without_its_rest(
    sink: Sink, client: httpx.Client
) -> None:
    long = rows(*(f"long-{number}" for number in range(5000)), text="x" * 1000)
    for content, wanted in ((long, 5000), (rows("short"), 1), (b"[]", 0), (b"", 0)):
        answer = client.post(INFERENCES, content=content).json()
        assert answer["counts"]["total"] == wanted
    assert sink.counts()[:3] == (5001, 0, 4)


def test_chunked_bodies(sink: Sink, client: httpx.Client) -> None:
    body = rows(*map(str, range(1000)), text="x" * 1000)
    for size in (1013, 300_000):
        pieces = (body[start : start + size] for start in range(0, len(body), size))
        answer = client.post(INFERENCES, content=pieces)
        assert answer.json()["counts"]["total"] == 1000
    client.post(INFERENCES, content=rows("last"))
    assert sink.counts() == Counts(1001, 1000, 3, 2 * len(body) + len(rows("last")))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_requests_in_small_pieces(size: int, sink: Sink) -> None:
    body = rows("a")
    half = len(body) // 2
    chunked = b"".join(
        (
            f"POST {INFERENCES} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n".encode(),
            *(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:], b"")),
        )
    )
    with connect(sink) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        both = raw_request(rows("b")) + chunked
        for start in range(0, len(both), size):
            connection.sendall(both[start : start + size])
        assert read_answers(connection, 2) == [207, 207]
    assert sink.counts()[:3] == (2, 0, 2)


def test_requests_that_come_before_the_answer(sink: Sink) -> None:
    with connect(sink) as connection:
        connection.sendall(raw_request(rows("a")) + raw_request(b"") + raw_request(rows("b")))
        assert read_answers(connection, 3) == [207, 207, 207]
    assert sink.counts()[:3] == (2, 0, 3)


def multipart(*parts: tuple[str, str]) -> bytes:
    return b"".join(
        (
            f'--b\r\nContent-Disposition: form-data; name="{name}"\r\nContent-Type: '
            f"application/json\r\nContent-Length: {len(value)}\r\n\r\n{value}\r\n"
        ).encode()
        for name, value in (*parts, ("end", "{}"))
    )


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
def test_langsmiths_runs_count_when_they_have_ended(
    encoding: str, sink: Sink, client: httpx.Client
) -> None:
    def post(*parts: tuple[str, str]) -> None:
        body = multipart(*parts)
        if encoding == "gzip":
            body = gzip.compress(body)
        elif encoding == "zstd":
            stream = zstandard.ZstdCompressor().compressobj()  # a frame of unknown length
            body = stream.compress(body) + stream.flush()
        answer = client.post(
            "/runs/multipart", content=body, headers={"Content-Encoding": encoding}
        )
        assert answer.status_code == 202

    text = json.dumps({"text": 'name="patch.x.outputs"\r\n\r\n1'})
    post(("post.a", "{}"), ("post.a.inputs", text), ("post.a.outputs", "{}"))
    assert sink.counts().records == 0
    post(("patch.a", "{}"), ("patch.a.outputs", text), ("patch.b.error", '"bad"'))
    assert sink.counts()[:2] == (2, 0)
    post(("post.c.outputs", text), ("post.c.error", '"bad"'), ("patch.a.outputs", text))
    assert sink.counts()[:2] == (3, 1)


def test_langsmiths_runs_in_json(sink: Sink, client: httpx.Client) -> None:
    ended: dict[str, Any] = {"outputs": {"text": "Hello"}}
    client.post("/runs/batch", json={"post": [{"id": "a"}, {"id": "b", **ended}], "patch": []})
    client.post("/runs", json={"id": "c", "outputs": {}})
    assert sink.counts()[:3] == (1, 0, 2)
    client.post("/runs/batch", json={"patch": [{"id": "a", **ended}]})
    client.patch("/runs/c", json=ended)
    assert sink.counts()[:3] == (3, 0, 4)


def field(number: int, *contents: bytes) -> bytes:
    """Length-delimited fields of a protobuf message, each below 16 KiB."""
    return b"".join(
        bytes([number << 3 | 2, len(content) & 0x7F | 0x80, len(content) >> 7]) + content
        for content in contents
    )


def span(name: str) -> bytes:
    time_and_flags = b"\x39" + bytes(8) + b"\x85\x01" + bytes(4)  # fields 7 and 16, of fixed length
    kind = b"\x30\x96\x01"  # field 6, a varint
    fixed = time_and_flags + kind
    return field(1, name.encode() * 16) + field(2, name.encode() * 8) + fixed + field(5, b"x" * 300)


@pytest.mark.parametrize("path", ["/v1/traces", "/api/public/otel/v1/traces"])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_spans_are_records(path: str, encoding: str, sink: Sink, client: httpx.Client) -> None:
    first = field(1, b"resource") + field(2, field(1, b"scope") + field(2, span("a"), span("b")))
    second = field(2, field(2, span("c")), field(2, span("a")))
    body = field(1, first, second)
    content = gzip.compress(body) if encoding == "gzip" else body
    answer = client.post(path, content=content, headers={"Content-Encoding": encoding})
    assert (answer.status_code, answer.content) == (200, b"")
    assert sink.counts() == Counts(records=3, duplicates=1, requests=1, bytes=len(content))


def test_the_process_is_the_owners() -> None:
    with Sink() as sink:
        assert 0 < sink.cpu_seconds() < 20
        assert httpx.get(sink.url + "/info").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(sink.url + "/info")
    with pytest.raises(ConnectionError, match="not running"):
        sink.counts()
