"""Strangers who send spans: pages of other sites, bombs, those who may not, and impatient ones."""

from __future__ import annotations

import gzip
import json

import pytest

from arthur_relay.daemon.auth import Endpoint, Principal, Token
from arthur_relay.daemon.engine_answers import TASK_NOT_ALLOWED
from arthur_relay.daemon.span_splitter import NO_SPAN_ID
from tests.daemon.edge import Edge, request, statuses
from tests.daemon.traces import TRACE, TRACES, body, hex_id

pytestmark = pytest.mark.anyio

TASK = "b0d9ad8e-6d2c-4a6e-9f39-7fe6bc9d6c39"
SECRET = "0123456789abcdef-secret"
PROTOBUF = "application/x-protobuf"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def spans(*numbers: int, path: str = TRACES, **headers: str) -> bytes:
    return request("POST", path, body(*numbers, task=TASK), Content_Type=PROTOBUF, **headers)


@pytest.mark.parametrize("path", [TRACES, "/v1/traces"])
async def test_pages_of_other_sites_send_no_spans(path: str) -> None:
    async with Edge(Endpoint.TCP, for_engine=True) as edge:
        assert statuses(await edge.exchange(spans(1, path=path))) == [200]
        foreign = spans(2, path=path, Origin="https://evil.example")
        assert statuses(await edge.exchange(foreign)) == [403]
        rebound = spans(2, path=path).replace(b"localhost", b"evil.example")
        assert statuses(await edge.exchange(rebound)) == [403]
        simple = spans(2, path=path).replace(PROTOBUF.encode(), b"text/plain")
        assert statuses(await edge.exchange(simple)) == [415]
        judged = f"{TRACES}/{TRACE}/annotations"
        content = b'{"annotation_score": 1}'
        simple = request("POST", judged, content, Content_Type="text/plain")
        assert statuses(await edge.exchange(simple)) == [415]
        assert len(edge.taken.rows) == 1


async def test_on_the_socket_any_name_will_do() -> None:
    async with Edge(Endpoint.SOCKET, for_engine=True, allowed_uids=None) as edge:
        sent = spans(1, path="/v1/traces").replace(b"localhost", b"collector.example")
        assert statuses(await edge.exchange(sent)) == [200]


async def test_without_a_token_nothing_is_told() -> None:
    tokens = (Token(Principal("some", frozenset({"a bot"})), SECRET),)
    async with Edge(Endpoint.TCP, tokens=tokens, for_engine=True) as edge:
        paths = [f"{TRACES}/spans?span_ids={hex_id(1)}", f"/api/v2/tasks/{TASK}"]
        for sent in (spans(1), *(request(path=path) for path in paths)):
            assert statuses(await edge.exchange(sent)) == [401]
        bearer = f"Bearer {SECRET}"
        assert statuses(await edge.exchange(spans(1, Authorization=bearer))) == [403]
        assert statuses(await edge.exchange(request(path=paths[1], Authorization=bearer))) == [403]
        answer = await edge.exchange(request(path=paths[0], Authorization=bearer))
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"count": 0, "spans": []}
        assert statuses(await edge.exchange(request(path="/health"))) == [200]
        assert edge.taken.rows == []


async def test_spans_of_other_tasks_cost_no_span_of_one_s_own() -> None:
    tokens = (Token(Principal("some", frozenset({TASK})), SECRET),)
    async with Edge(Endpoint.TCP, tokens=tokens, for_engine=True) as edge:
        content = body(1, task=TASK) + body(2, task=TASK.replace("b", "a"))
        bearer = f"Bearer {SECRET}"
        sent = request("POST", TRACES, content, Content_Type=PROTOBUF, Authorization=bearer)
        answer = await edge.exchange(sent)
        assert statuses(answer) == [206]
        assert TASK_NOT_ALLOWED.encode() in answer
        assert [row.model_id for row in edge.taken.rows] == [TASK]


async def test_a_span_in_json_that_can_t_be_read_costs_no_other() -> None:
    ids = '"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b17'
    deep = '{"arrayValue":{"values":[' * 90 + '{"intValue":NaN}' + "]}}" * 90
    inside = f'{{{ids}1"}},{{{ids}2","attributes":[{{"key":"x","value":{deep}}}]}},{{{ids}"}}'
    content = f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{inside}]}}]}}]}}'.encode()
    async with Edge(for_engine=True) as edge:
        sent = request("POST", TRACES, content, Content_Type="application/json")
        answer = await edge.exchange(sent)
        assert statuses(answer) == [206]
        found = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert (found["accepted_spans"], found["rejection_reasons"]) == (2, [NO_SPAN_ID])
        assert len(edge.taken.rows) == edge.counts.repaired == 2  # the other has no times


async def test_bombs_keep_no_memory() -> None:
    async with Edge(for_engine=True, max_body_bytes=100_000) as edge:
        for content, status in (
            (gzip.compress(bytes(10_000_000)), 413),
            (gzip.compress(b"") * 100, 400),
            (gzip.compress(bytes(50_000)) * 3, 413),
            (b"\x1f\x8b", 400),
        ):
            headers = {"Content_Type": PROTOBUF, "Content_Encoding": "gzip"}
            sent = request("POST", TRACES, content, **headers)
            assert statuses(await edge.exchange(sent)) == [status]
        assert edge.counts.body_bytes == 0


async def test_what_is_sent_again_too_early_is_put_off() -> None:
    async with Edge(for_engine=True) as edge:
        edge.taken.may_answer.clear()
        first = await edge.connect()
        await first.send(spans(1, 2))
        while not edge.taken.offers:
            await first.send(b"")
        second = await edge.connect()
        await second.send(spans(1, 2))
        status, headers, _ = await second.answer()
        assert (status, headers["retry-after"]) == (503, "1")
        edge.taken.may_answer.set()
        assert (await first.answer())[0] == 200
        await second.send(spans(1, 2))
        assert (await second.answer())[0] == 200
        assert len(edge.taken.rows) == 2
        for each in (first, second):
            await each.close()


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/api/v2/tasks/search", b"[]"),
        ("/api/v2/tasks/search", b"{"),
        ("/api/v2/tasks/search", b'{"task_name": " "}'),
        ("/api/v2/tasks/search", b'{"task_name": "%b"}' % (b"x" * 300)),
        ("/api/v2/tasks/search", b'{"task_name": "%b"}' % (b"x" * 70_000)),
        (f"{TRACES}/{TRACE}/annotations", b'{"annotation_score": "%b"}' % (b"x" * 70_000)),
        (f"{TRACES}/{TRACE}/annotations", b"{"),
    ],
)
async def test_questions_that_are_none(path: str, content: bytes) -> None:
    async with Edge(for_engine=True) as edge:
        sent = request("POST", path, content, Content_Type="application/json")
        assert statuses(await edge.exchange(sent)) == [400]
        for asked in (f"{TRACES}/spans", "/api/v2/tasks/no-uuid"):
            assert statuses(await edge.exchange(request(path=asked))) == [400]
