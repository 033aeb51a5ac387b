"""Arthur's own words: kept where they can hold no text of a row, whatever the row says."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arthur_relay.destinations.engine import interpret as engine
from arthur_relay.destinations.http import Answer
from arthur_relay.destinations.own_words import HARMLESS, LONGEST_RUN, MOST_ROW_BYTES, own_words
from arthur_relay.destinations.scope import interpret as scope
from arthur_relay.row import Batch, Row
from tests.destinations.engine.spans import row as span_row

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "2c8e1f0a-0000-4a11-b000-5d2e6f7a8b9c"
PROMPT = "Is the patient Alice Kowalczyk, born 1974, HIV positive? José said: see\nher chart"


def row(text: Any = PROMPT, name: str = "i1", **more: Any) -> Row:
    document = {
        "partner_inference_id": name,
        "inference_timestamp": "2026-11-25T12:00:00Z",
        "inference_data": {"input_text": text, "output_text": "Yes.", **more},
    }
    return Row(id=name, model_id=MODEL, body=json.dumps(document).encode())


@pytest.mark.parametrize(
    "said",
    [
        "attribute 'duration' must be FLOAT, not a string",
        "unknown attribute 'user_id'",
        "inference_timestamp has no timezone",
        "input_text must not be null",  # an attribute's name, and a word of the prompt: `see`
        "no inference has this partner_inference_id",
        "the sandbox was told to fail this row",
        "inference i1 exists already",
        f"model {MODEL} is archived",
        "a row with this id was stored before: duplicate",
    ],
)
def test_what_says_nothing_about_anybody_is_kept(said: str) -> None:
    assert own_words(said, [row(duration="long", user_id=3)]) == said


@pytest.mark.parametrize(
    "said",
    [
        "cannot parse 'Is the patient Alice'",
        "value alice is not a number",
        "value KOWALCZYK is not a number",
        "unexpected kowalcz",  # cut
        "1974 is not a string",
        "197 is out of range",
        "Jose is not a number",
        "unknown: Jos\u00e9",
        "unknown: Jos\\u00e9",
        "unknown: %41lice",
        "unknown: &#65;lice",
        "unknown: her chart",
        "invalid key sandbox-key",
        "token 4f2a9c81b7 is invalid",  # digits and letters: who knows of what
        "unknown: QWxpY2U",
        "invalid\x1b[2J",
        "",
        " ",
        "is invalid, " * 30,
        None,
        7,
        ["attribute"],
        {"message": "attribute"},
    ],
)
def test_what_may_be_of_the_row_is_not(said: object) -> None:
    assert own_words(said, [row()], ["Sandbox-Key", ""]) == ""


def test_it_stays_within_one_line() -> None:
    assert own_words(" row is\n invalid\t", [row()]) == "row is invalid"


def test_three_words_of_a_text_are_a_quotation_whichever_they_are() -> None:
    prompt = row("Which record is the last of the list?")
    assert own_words("record is invalid", [prompt]) == "record is invalid"
    assert own_words("invalid: record is the", [prompt]) == ""


def test_names_within_a_value_are_texts() -> None:
    likely = row("Hi", output_likelihoods=[{"Alice": 0.9}], nested={"a": {"Kowalczyk": [1974]}})
    assert own_words("attribute output_likelihoods is invalid", [likely])
    for each in ("Alice", "Kowalczyk", "1974"):
        assert own_words(f"{each} is invalid", [likely]) == ""


def test_a_message_about_several_rows_quotes_none_of_them() -> None:
    assert own_words("record not found", [row(), row("Hello")])
    assert own_words("Hello is invalid", [row(), row("Hello")]) == ""
    assert own_words("Hello is invalid", [row("Hello"), row()]) == ""


def test_a_row_that_takes_long_to_look_through_is_not() -> None:
    assert own_words("row is invalid", [row("x" * MOST_ROW_BYTES)]) == ""
    assert own_words("row is invalid", [row("x" * (MOST_ROW_BYTES - 1000))])


def test_spans_are_read_as_they_are() -> None:
    nested = json.dumps({"messages": [{"content": PROMPT}]})
    spans = [span_row(task=MODEL, input__value=nested, llm__token_count__prompt="plenty")]
    said = "Invalid span data format: llm.token_count.prompt must be a number"
    assert own_words(said, spans) == said
    for each in ("Alice", "kowalczyk", "1974", "Jose", "plenty", "chart", "llm.token_count.alice"):
        assert own_words(f"Invalid: {each}", spans) == ""


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"a": "\\ud800"}', b"null"])
def test_a_row_that_can_not_be_read_stops_nothing(body: bytes) -> None:
    assert own_words("row is invalid", [Row(id="", model_id="", body=body)]) == "row is invalid"


def answer(status: int, /, **document: Any) -> Answer:
    body = json.dumps(document).encode()
    return Answer(status, {"content-type": "application/json"}, body, {})


def test_a_rejected_row_of_a_207_has_arthurs_words_for_it_alone() -> None:
    rows = (row("Hello"), row("Alice"), row("Hello"), row("Alice"))
    said = "attribute 'input_text' is unknown"
    results = [
        {"status": 200, "message": "success"},
        {"status": 400, "message": said},
        {"status": 400, "message": "value Alice is unknown"},
        {"status": 422, "message": "value Alice is unknown"},
    ]
    attempt = scope.interpret(
        Batch(MODEL, rows),
        answer(207, results=results),
        secrets=(),
        remedy="",
        retry_after_seconds=None,
    )
    assert [each.said for each in attempt.outcomes] == ["", said, "value Alice is unknown", ""]
    assert [each.reason for each in attempt.outcomes] == ["", "row 400", "row 400", "row 422"]
    assert attempt.reason == "row 400", "no log line has them"


@pytest.mark.parametrize("key", ["error", "message"])
def test_a_refused_request_has_arthurs_words_if_they_quote_none_of_its_rows(key: str) -> None:
    def said(text: object) -> set[str]:
        attempt = scope.interpret(
            Batch(MODEL, (row("Hello"), row("Alice"))),
            answer(409, status=409, **{key: text}),
            secrets=("a-key",),
            remedy="",
            retry_after_seconds=None,
        )
        assert {each.reason for each in attempt.outcomes} == {"http 409"}
        return {each.said for each in attempt.outcomes}

    assert said("record exists already") == {"record exists already"}
    assert said("Alice exists already") == said("a-key is invalid") == {""}


def test_a_rejected_span_has_the_engines_words_in_their_order() -> None:
    spans = (
        span_row(1, task=MODEL, input__value="Alice"),
        span_row(2, task=MODEL, input__value="Hello"),
    )
    reasons = ["llm.token_count.prompt must be a number", "key 'Alice' is invalid"]
    counts = {"total_spans": 2, "accepted_spans": 0, "rejected_spans": 2}

    def said(reasons: list[Any]) -> list[str]:
        found = engine.interpret(
            Batch(MODEL, spans),
            answer(422, **counts, rejection_reasons=reasons),
            secrets=(),
            retry_after_seconds=None,
        )
        assert {each.reason for each in found.outcomes} == {engine.REJECTED.reason}
        return [each.said for each in found.outcomes]

    assert said(reasons) == [reasons[0], ""], "nor another span's text"
    assert said(reasons[:1]) == ["", ""], "whose it is, nobody knows"
    assert said([None, 7]) == ["", ""]
    partly = engine.Counts(1, 1, (reasons[0],))
    found = engine.interpret_partial(Batch(MODEL, spans), frozenset(spans[:1]), partly, ())
    assert [each.said for each in found.outcomes] == ["", reasons[0]]


WORDS = st.one_of(
    st.text(max_size=12),
    st.text("aeilnrst", min_size=1, max_size=6),
    st.sampled_from(sorted(HARMLESS)),
    st.sampled_from(["Alice", "1974", "3.14", "\u00e9t\u00e9", "stra\u00dfe", "a_b", "it's"]),
)
WAYS: list[Callable[[str], str]] = [str, str.upper, str.title, json.dumps, repr, ascii, quote]


@given(st.lists(WORDS, min_size=1, max_size=8).map(" ".join), st.data())
def test_no_part_of_a_text_is_ever_shown(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    part = text[start : data.draw(st.integers(start, len(text)))]
    way = data.draw(st.sampled_from(WAYS))
    frame = data.draw(st.sampled_from(["invalid value: {}", "{}", "({}) is unknown", "'{}'"]))
    for each in (row(text), span_row(task=MODEL, input__value=text)):
        if own_words(frame.replace("{}", way(part)), [each]):
            words = re.findall(r"\w+", part.casefold())
            assert all(word in HARMLESS for found in words for word in found.split("_") if word)
            assert len(words) <= LONGEST_RUN


@given(st.lists(WORDS, max_size=8).map(" ".join))
def test_a_prompt_does_not_hide_what_is_said_of_its_form(text: str) -> None:
    said = "attribute input_text must not be null"
    words = re.findall(r"\w+", text.casefold())
    runs = zip(words, words[1:], words[2:], strict=False)
    if not any(run in {("must", "not", "be"), ("not", "be", "null")} for run in runs):
        assert own_words(said, [row(text)]) == said
