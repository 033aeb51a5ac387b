"""The page in a real browser: what a person sees, finds and opens, while rows arrive."""

from __future__ import annotations

import os
import re
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from arthur_relay import ArthurCallbackHandler
from arthur_relay.sandbox import ArthurSandbox, attribute
from tests.destinations.engine.spans import TRACE
from tests.destinations.engine.spans import row as span_row

from .browser import Browser, Tab, needed_browser
from .rows import INFERENCES, row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arthur_relay.row import Row

pytestmark = pytest.mark.one_python

NONE = "\N{EN DASH}"  # shown for what is not known
EVIL = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'><b>bold</b>"
FULL = {
    "finish_reason": "stop",
    "prompt_tokens": 1234,
    "completion_tokens": 5,
    "total_tokens": 1239,
    "duration": 0.25,
    "outcome": "ok",
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(needed_browser(), tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[..., Tab]]:
    """Open a sandbox's page, and assert at the end that its script never failed."""
    opened: list[Tab] = []

    def open_page(sandbox: ArthurSandbox, **size: int) -> Tab:
        tab = browser.open(f"{sandbox.url}/", **size)
        opened.append(tab)
        tab.until("document.querySelector('#live').innerText === 'Live'")
        tab.until("document.querySelector('#count-inferences').innerText !== '\N{EN DASH}'")
        return tab

    yield open_page
    for tab in opened:
        # A refused connection is an outage that the test has made.
        assert [each for each in tab.errors() if "ERR_CONNECTION_REFUSED" not in each] == []
        tab.close()


def rows_are(count: int) -> str:
    return f"document.querySelectorAll('#rows > li').length === {count}"


def outputs_are(*texts: str) -> str:
    shown = "[...document.querySelectorAll('#rows .row')].map((each) => each.children[2].innerText)"
    return f"{shown}.join() === {','.join(texts)!r}"


def models_are(*texts: str) -> str:
    shown = "[...document.querySelectorAll('#models button')].map((each) => each.innerText)"
    return f"{shown}.join() === {','.join(texts)!r}"


def columns(tab: Tab, number: int = 1) -> list[str]:
    return tab.texts(f"#rows > li:nth-child({number}) > .row > *")


def counts(tab: Tab) -> dict[str, str]:
    return dict(zip(tab.texts(".counts dt"), tab.texts(".counts dd"), strict=True))


def post(client: httpx.Client, *rows: dict[str, Any], model: str = "demo", bad: int = 0) -> None:
    answer = client.post(f"/api/v3/models/{model}/inferences", json=rows).json()
    assert answer["counts"]["failure"] == bad, answer


def test_rejected_rows_are_shown_with_their_reasons(
    client: httpx.Client, sandbox: ArthurSandbox, show: Callable[..., Tab]
) -> None:
    tab = show(sandbox)
    assert not tab.shows("#rejections")
    post(client, row(EVIL, duration="long"), bad=1)
    tab.until("document.querySelectorAll('#rejected-rows > div').length === 1")
    assert tab.text("#rejected-rows dt") == EVIL
    assert "duration" in tab.text("#rejected-rows dd")


def test_rows_come_newest_first_with_all_columns(
    client: httpx.Client, sandbox: ArthurSandbox, show: Callable[..., Tab]
) -> None:
    now = datetime.now(UTC)
    post(
        client,
        row("old") | {"inference_timestamp": "2020-06-07T12:00:13+00:00"},
        row("failed", output_text="", outcome="error", error="it broke", duration=12.345),
        row("new", input_text="Why?", output_text="Because.", **FULL)
        | {"inference_timestamp": now.isoformat()},
    )
    tab = show(sandbox)
    tab.until(rows_are(3))
    assert tab.texts(".heads > *") == ["Time", "Input", "Output", "Tokens", "Duration", "Finish"]
    newest, failed, oldest = (columns(tab, number) for number in (1, 2, 3))
    # The day, when midnight has come in between.
    assert newest[0] in {f"{now:%H:%M:%S}", f"{now:%d %b %H:%M}"}
    assert newest[1:] == ["Why?", "Because.", "1,234 → 5", "250 ms", "stop"]
    assert failed[2:] == ["it broke", NONE, "12.3 s", "error"]
    assert oldest == ["07 Jun 12:00", "Hi", "Hello", NONE, NONE, NONE]
    assert tab.evaluate("document.querySelector('#rows time').dateTime") == now.isoformat()
    assert "bad" in tab.evaluate("document.querySelectorAll('#rows .tag')[1].className")
    assert not tab.shows("#empty")


def test_an_agents_tool_calls_are_shown_for_the_demo_model(
    sandbox: ArthurSandbox, show: Callable[..., Tab]
) -> None:
    """As the handler sends them; a row of a conversation shows its last message."""
    called = {"name": "weather", "args": {"city": "Ulm", "days": 2}, "id": "c1"}
    answers = [AIMessage("", tool_calls=[called]), AIMessage("It is sunny.")]
    model = GenericFakeChatModel(messages=iter(answers))
    history: list[BaseMessage] = [HumanMessage("How is the weather in Ulm?")]
    handler = ArthurCallbackHandler.from_credentials(
        sandbox.model_id, sandbox.url, sandbox.login, sandbox.password
    )
    history.append(model.invoke(history, {"callbacks": [handler]}))
    history.append(ToolMessage("21 °C", tool_call_id="c1"))
    model.invoke(history, {"callbacks": [handler]})
    handler.relay.close()
    tab = show(sandbox)
    tab.until(rows_are(2))
    assert columns(tab, 2)[1:3] == [
        "Human: How is the weather in Ulm?",
        '→ weather(city="Ulm", days=2)',
    ]
    assert columns(tab, 1)[1:3] == ["… Tool: 21 °C", "It is sunny."]


@pytest.mark.parametrize("odd", ["{", "[]", "7", "[7]", '[{"id": 1}]', "x" * 5000])
def test_tool_calls_that_are_none_of_ours_are_shown_as_they_are(
    odd: str, client: httpx.Client, sandbox: ArthurSandbox
) -> None:
    post(client, row("a", output_text="", tool_calls=odd))
    (found,) = client.get("/sandbox/inferences").json()["inferences"]
    assert (found["tool_calls"] or "[]") == odd[:600]


def test_what_arrives_appears_without_a_reload(
    client: httpx.Client, sandbox: ArthurSandbox, show: Callable[..., Tab]
) -> None:
    tab = show(sandbox)
    assert counts(tab) == {
        "Inferences": "0",
        "Requests": "0",
        "Rejected": "0",
        "Duplicates": "0",
        "Logins": "0",
    }
    assert tab.shows("#empty")
    tab.evaluate("window.same = true")
    post(client, row("a", output_text="first"), {}, bad=1)
    tab.until(outputs_are("first"))
    tab.until("document.querySelector('#count-requests').innerText === '1'")
    tab.click("#rows .row")
    tab.until("document.querySelector('#rows .facts') !== null")
    post(client, row("b", output_text="second"), row("a"))
    tab.until(outputs_are("second", "first"))
    tab.until("document.querySelector('#count-requests').innerText === '2'")
    login = {"login": sandbox.login, "password": sandbox.password}
    assert client.post("/api/v3/login", json=login).status_code == 200
    tab.until("document.querySelector('#count-logins').innerText === '1'")
    assert counts(tab) == {
        "Inferences": "2",
        "Requests": "3",
        "Rejected": "1",
        "Duplicates": "1",
        "Logins": "1",
    }
    # What the reader had open is still open, and last.
    assert tab.shows("#rows > li:nth-child(2) .facts")
    assert tab.evaluate("window.same") is True


def test_more_rows_than_a_page_has(
    client: httpx.Client, sandbox: ArthurSandbox, show: Callable[..., Tab]
) -> None:
    post(client, *[row(f"{number}", output_text=f"{number}") for number in range(70)])
    tab = show(sandbox)
    tab.until(rows_are(50))
    assert columns(tab, 50)[2] == "20"
    tab.click("#more")
    tab.until(rows_are(70))
    assert columns(tab, 70)[2] == "0"
    assert not tab.shows("#more")
    # More at once than a page has: the list begins anew, without a gap.
    post(client, *[row(f"{number}", output_text=f"{number}") for number in range(70, 140)])
    tab.until("document.querySelector('#rows .row').children[2].innerText === '139'")
    assert columns(tab, 50)[2] == "90"
    assert tab.shows("#more")


def test_search(client: httpx.Client, sandbox: ArthurSandbox, show: Callable[..., Tab]) -> None:
    post(
        client,
        row("one", output_text="apple pie"),
        row("two", output_text="banana"),
        row("three", output_text="apple juice"),
    )
    tab = show(sandbox)
    tab.until(rows_are(3))
    tab.type("#search", "APPLE")
    tab.until(outputs_are("apple juice", "apple pie"))
    post(client, row("four", output_text="cherry"), row("five", output_text="apple tart"))
    tab.until(outputs_are("apple tart", "apple juice", "apple pie"))
    tab.type("#search", "nowhere")
    tab.until("!document.querySelector('#nothing').hidden")
    assert tab.text("#nothing") == "No inference matches."
    tab.type("#search", "two")
    tab.until(outputs_are("banana"))
    assert not tab.shows("#nothing")
    tab.type("#search", "")
    tab.until(rows_are(5))


def test_the_models(client: httpx.Client, sandbox: ArthurSandbox, show: Callable[..., Tab]) -> None:
    tab = show(sandbox)
    post(client, row("a", output_text="of the demo"))
    tab.until(rows_are(1))
    assert len(tab.texts("#models button")) == 1
    sandbox.add_model(model_id="other", display_name="Other")
    post(client, row("b", output_text="of the other"), model="other")
    tab.until(rows_are(2))
    tab.until(models_are("All models2", "arthur-relay demo1", "Other1"))
    tab.click("#models button[data-id=other]")
    tab.until(outputs_are("of the other"))
    post(client, row("c", output_text="more"))
    tab.until("document.querySelector('#count-inferences').innerText === '3'")
    post(client, row("d", output_text="more of the other"), model="other")
    tab.until(outputs_are("more of the other", "of the other"))
    tab.until(models_are("All models4", "arthur-relay demo2", "Other2"))
    assert tab.texts("#models button[aria-pressed=true]") == ["Other2"]
    tab.click("#models button:first-child")
    tab.until(rows_are(4))


def test_an_opened_inference(
    client: httpx.Client, sandbox: ArthurSandbox, show: Callable[..., Tab]
) -> None:
    long = "word " * 400
    post(client, row("run-1", input_text=long, user_id="u1", output_tokens=["a", "b"], **FULL))
    client.patch(
        INFERENCES,
        json=[
            {
                "partner_inference_id": "run-1",
                "ground_truth_timestamp": "2026-06-07T12:00:13+00:00",
                "ground_truth_data": {"thumbs_up": True},
            }
        ],
    )
    tab = show(sandbox)
    tab.until(rows_are(1))
    assert tab.evaluate("document.querySelector('.row .text').textContent.length") == 600
    tab.click("#rows .row")
    tab.until("document.querySelector('#rows .facts') !== null")
    assert tab.texts(".detail h3") == ["Input", "Output", "Attributes"]
    whole, output = tab.evaluate(
        "[...document.querySelectorAll('.detail pre')].map((each) => each.textContent)"
    )
    assert whole == long
    assert output == "Hello"
    facts = dict(zip(tab.texts(".facts dt"), tab.texts(".facts dd"), strict=True))
    assert facts["partner_inference_id"] == "run-1"
    assert facts["user_id"] == "u1"
    assert facts["output_tokens"] == '["a","b"]'
    assert facts["thumbs_up (ground truth)"] == "true"
    assert facts["duration"] == "0.25"
    assert "input_text" not in facts
    assert tab.evaluate("document.querySelector('.row').getAttribute('aria-expanded')") == "true"
    tab.click("#rows .row")
    tab.until("document.querySelector('.detail') === null")


def test_markup_is_shown_as_text(
    client: httpx.Client, sandbox: ArthurSandbox, show: Callable[..., Tab]
) -> None:
    sandbox.add_model(
        [
            attribute("in", "UNSTRUCTURED_TEXT", "PIPELINE_INPUT"),
            attribute("out", "UNSTRUCTURED_TEXT", "PREDICTED_VALUE"),
            attribute("finish_reason", "STRING", "NON_INPUT_DATA"),
        ],
        model_id="evil",
        display_name=EVIL,
    )
    data = {"in": EVIL, "out": EVIL, "finish_reason": EVIL}
    post(client, row(EVIL) | {"inference_data": data}, model="evil")
    tab = show(sandbox)
    tab.until(rows_are(1))
    tab.click("#rows .row")
    tab.until("document.querySelector('#rows .facts') !== null")
    assert columns(tab)[1:3] == [EVIL, EVIL]
    assert columns(tab)[5] == EVIL
    assert tab.texts(".detail pre") == [EVIL, EVIL]
    assert tab.text(".facts dd") == EVIL
    assert EVIL + "1" in tab.texts("#models button")
    assert tab.evaluate("document.scripts.length") == 1
    assert tab.evaluate("document.querySelectorAll('img, b').length") == 0
    assert tab.evaluate("typeof window.hacked") == "undefined"


def test_faults_are_told_and_reset(
    client: httpx.Client, sandbox: ArthurSandbox, show: Callable[..., Tab]
) -> None:
    post(client, row())
    tab = show(sandbox)
    tab.until(rows_are(1))
    assert not tab.shows("#faults")
    sandbox.faults.status(503, times=2)
    sandbox.faults.slow(0.01)
    sandbox.faults.cut_midbody(times=1, routes=["login"])
    told = "Faults on: status 503, 2 left; slow 0.01 s; cut midbody, 1 left"
    tab.until(f"document.querySelector('#faults-text').innerText === '{told}'")
    assert tab.shows("#faults")
    assert client.post(INFERENCES, json=[row("b")]).status_code == 503
    tab.until("document.querySelector('#faults-text').innerText.includes('503, 1 left')")
    tab.click("#faults-reset")
    tab.until("document.querySelector('#faults').hidden")
    assert sandbox.faults.active == []


def test_an_outage(client: httpx.Client, sandbox: ArthurSandbox, show: Callable[..., Tab]) -> None:
    post(client, row("a", output_text="before"), row("b", output_text="another"))
    tab = show(sandbox)
    tab.until(rows_are(2))
    tab.evaluate("window.same = true")
    sandbox.go_away()
    tab.until("document.querySelector('#live').innerText === 'Not connected'")
    assert columns(tab)[2] == "another"
    # What is asked for meanwhile is answered when there is somebody to answer.
    tab.type("#search", "before")
    tab.until_failed("q=before")
    sandbox.come_back()
    tab.until("document.querySelector('#live').innerText === 'Live'")
    tab.until(outputs_are("before"))
    tab.type("#search", "")
    tab.until(rows_are(2))
    post(client, row("c", output_text="after"))
    tab.until(rows_are(3))
    assert columns(tab)[2] == "after"
    assert tab.evaluate("window.same") is True


def test_another_sandbox_on_the_same_address(
    client: httpx.Client, sandbox: ArthurSandbox, show: Callable[..., Tab]
) -> None:
    post(client, row("a"), row("b"))
    tab = show(sandbox)
    tab.until(rows_are(2))
    tab.click("#models button")  # the only one
    sandbox.stop()
    tab.until("document.querySelector('#live').innerText === 'Not connected'")
    port = int(sandbox.url.rpartition(":")[2])
    with ArthurSandbox(port=port, model_id="new") as other:
        tab.until("document.querySelector('#live').innerText === 'Live'")
        tab.until("!document.querySelector('#empty').hidden")
        with httpx.Client(base_url=other.url, headers={"Authorization": other.api_key}) as new:
            post(new, row("c", output_text="of the new one"), model="new")
        tab.until(outputs_are("of the new one"))
        assert tab.evaluate("document.querySelector('#models button').ariaPressed") == "true"


def test_the_commands_that_an_empty_page_shows(
    sandbox: ArthurSandbox, show: Callable[..., Tab], monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = show(sandbox)
    assert tab.shows("#empty")
    words = shlex.split(tab.text("#shell").replace("$ARTHUR_API_KEY", sandbox.api_key))
    assert words[0] == "curl"
    headers = dict(
        words[index + 1].split(": ", 1) for index, word in enumerate(words) if word == "-H"
    )
    answer = httpx.post(words[1], headers=headers, content=words[words.index("-d") + 1])
    assert answer.json()["counts"]["success"] == 1
    for name in [name for name in os.environ if re.match("ARTHUR_|VERIFY_SSL", name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ARTHUR_API_KEY", sandbox.api_key)
    program = tab.evaluate("document.querySelector('#python').textContent")
    names: dict[str, Any] = {"llm": FakeListChatModel(responses=["Hello!"])}
    exec(compile(program, "page", "exec"), names)
    names["handler"].relay.close()
    tab.until(outputs_are("Hello!", "Hello to you."))


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (768, 1024), (390, 844), (320, 568)])
def test_nothing_is_wider_than_the_screen(
    client: httpx.Client, sandbox: ArthurSandbox, show: Callable[..., Tab], width: int, height: int
) -> None:
    def is_too_wide() -> Any:
        return tab.evaluate("document.documentElement.scrollWidth > innerWidth")

    tab = show(sandbox, width=width, height=height)
    assert not is_too_wide()
    sandbox.add_model(model_id="other", display_name="n" * 200)
    post(client, row("x" * 300, input_text="w" * 3000, finish_reason="stop" * 20, duration=1.0))
    tab.until(rows_are(1))
    for number in range(8):
        sandbox.faults.status(500 + number)
    tab.until("document.querySelector('#faults-text').innerText.includes('507')")
    tab.click("#rows .row")
    tab.until("document.querySelector('#rows .facts') !== null")
    assert not is_too_wide()


TRACES = "/api/v1/traces"


def post_spans(sandbox: ArthurSandbox, *spans: Row) -> None:
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    body = b"".join(each.body for each in spans)
    assert httpx.post(f"{sandbox.url}{TRACES}", content=body, headers=headers).status_code == 200


def tree_is(*lines: str) -> str:
    shown = "[...document.querySelectorAll('.tree summary .label')].map((each) => each.innerText)"
    return f"{shown}.join() === {','.join(lines)!r}"


def test_traces_appear_and_grow_as_trees_without_a_reload(
    sandbox: ArthurSandbox, show: Callable[..., Tab]
) -> None:
    def made(number: int, name: str, **more: Any) -> Row:
        start = 1_700_000_000_000_000_000 + number
        return span_row(number, task=sandbox.task_id, name=name, start=start, **more)

    tab = show(sandbox)
    assert tab.shows("#empty")
    assert sandbox.task_id in tab.text("#engine")
    tab.evaluate("window.same = true")
    tokens = {"llm__token_count__prompt": 1200, "llm__token_count__completion": 34}
    post_spans(sandbox, made(2, "model", parent=1, output__value=EVIL, **tokens))
    tab.until("document.querySelectorAll('#trace-rows > li').length === 1")
    assert not tab.shows("#empty")
    cells = tab.texts("#trace-rows .row > *")
    assert cells[1:] == ["model", NONE, "1,200 → 34", "1.50 s", "1 span"]
    tab.click("#trace-rows .row")
    tab.until(tree_is("model"))
    tab.click(".tree summary")
    tab.until("document.querySelectorAll('.tree pre')[1]?.innerText.startsWith('<script>')")
    post_spans(sandbox, made(1, "agent", input__value="Why?", output__value="Because."))
    post_spans(sandbox, made(3, "tool", parent=1))
    tab.until(tree_is("agent", "model", "tool"))
    assert tab.texts("#trace-rows .row > *")[1:3] == ["Why?", "Because."]
    assert tab.evaluate("document.querySelectorAll('.tree ul > li').length") == 2
    tab.until("document.querySelectorAll('.tree pre').length === 2")  # it stays open
    path = f"{TRACES}/{TRACE}/annotations"
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    httpx.post(f"{sandbox.url}{path}", json={"annotation_score": 1}, headers=headers)
    tab.until("document.querySelector('#trace-rows .tag').innerText.includes('▲')")
    post_spans(sandbox, span_row(1, task=sandbox.task_id, trace="a" * 32, name="newer"))
    tab.until("document.querySelectorAll('#trace-rows > li').length === 2")
    assert tab.texts("#trace-rows > li:first-child .row > *")[1] == "newer"
    assert counts(tab)["Traces"] == "2"
    assert counts(tab)["Spans"] == "4"
    assert tab.evaluate("window.same && window.hacked === undefined")


def test_older_traces_are_shown_on_demand(sandbox: ArthurSandbox, show: Callable[..., Tab]) -> None:
    for number in range(60):
        post_spans(sandbox, span_row(1, task=sandbox.task_id, trace=f"{number:032x}"))
    tab = show(sandbox)
    tab.until("document.querySelectorAll('#trace-rows > li').length === 50")
    tab.click("#more-traces")
    tab.until("document.querySelectorAll('#trace-rows > li').length === 60")
    assert not tab.shows("#more-traces")
