"""Every cell of the table, with the real client packages, over real sockets."""

from __future__ import annotations

from typing import Any

import pytest

from .answers import ANSWERS
from .client import Client
from .clients import CLIENTS
from .forms import Form
from .not_handed_over import reasons
from .recorder import Recorder
from .server import Server
from .spans import wrong_places
from .stage import Stage
from .table import FIELDS, AnyOf, OneOf, agrees, cases, may_be_there, right_values


@pytest.mark.parametrize(
    ("client", "form", "answer"),
    [pytest.param(*case, id=f"{case[0].name}-{case[1].name}-{case[2]}") for case in cases()],
)
def test_the_row_and_the_span(client: Client, form: Form, answer: str, server: Server) -> None:
    right = right_values(client, form, answer)
    with Stage() as stage:
        raised = _call(client, form, answer, server, stage)
        assert (raised is not None) == (right["outcome"] != "ok"), raised
        row = stage.row(unmatched_events=int(client.ends_twice))
        wrong = list(_wrong_cells(client, form, answer, row, stage.recorder))
        assert not wrong, f"{wrong}\nrow: {row}\nhanded over: {stage.recorder.result!r}"
        span = stage.span()
        wrong = list(wrong_places(client, span, row))
        assert not wrong, f"{wrong}\nrow: {row}\nspan: {span}"
        if "time_to_first_token" in row:
            assert row["time_to_first_token"] <= row["duration"]
            also = client.wire.differs.get(answer, {}).get("output_text")
            first = stage.recorder.first_content_events(ANSWERS[answer], also=also)
            assert stage.recorder.first_token_event in first


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_consumer_that_leaves_in_mid_stream(client: Client, server: Server) -> None:
    """What is not complete is not told as if it were."""
    model = client.model(server.at(client.wire), "text")
    with Stage() as stage:
        chunks = model.stream("text", stage.config)
        while not _text_of(next(chunks)):
            pass
        chunks.close()
        row = stage.row()
        assert row["outcome"] == "disconnected"
        assert "finish_reason" not in row
        assert ANSWERS["text"].whole_text.startswith(row["output_text"])
        assert row["output_text"] != ANSWERS["text"].whole_text


def _text_of(chunk: Any) -> str:
    return chunk if isinstance(chunk, str) else str(chunk.text)


def _call(
    client: Client, form: Form, answer: str, server: Server, stage: Stage
) -> Exception | None:
    model = client.model(server.at(client.wire), answer)
    try:
        form.call(model, answer, stage.config)
    except Exception as error:  # noqa: BLE001 - whatever the provider's package raises
        return error
    return None


def _wrong_cells(
    client: Client, form: Form, answer: str, row: dict[str, Any], recorder: Recorder
) -> Any:
    """Yield what is wrong in a row."""
    right = right_values(client, form, answer)
    allowed = may_be_there(client, form, answer)
    for field in FIELDS:
        found = row.get(field)
        lost = next(reasons(client, form, answer, field), None)
        if lost is not None and field in lost.instead:
            if not agrees(field, found, lost.instead[field]):
                yield f"{field} should be {lost.instead[field]!r} here, is {found!r}"
        elif field not in right:
            if found is not None and (field not in allowed or found != allowed[field]):
                yield f"{field} should not be there: {found!r}"
        elif lost is not None:
            if found and not (field == "model_name" and _was_asked_for(found, client, recorder)):
                yield f"{field} is there, though LangChain should not hand it over: {found!r}"
            elif _handed_over(field, right[field], recorder, answer):
                yield f"LangChain hands {field} over now: {right[field]!r}"
        elif not agrees(field, found, right[field]):
            yield f"{field} should be {right[field]!r}, is {found!r}"


def _was_asked_for(name: Any, client: Client, recorder: Recorder) -> bool:
    """Return whether LangChain names another model than that which has answered."""
    return bool(name == client.asked_for) or recorder.hands_over(name)


def _handed_over(field: str, right: Any, recorder: Recorder, answer: str) -> bool:
    if field == "time_to_first_token":
        return bool(recorder.first_content_events(ANSWERS[answer]))
    if field == "output_likelihoods":
        logprobs = ANSWERS[answer].logprobs or {}
        return all(recorder.hands_over(value) for value in logprobs.values())
    if field == "output_tokens":
        return False  # they are the text's pieces: their likelihoods tell whether they are there
    if field == "tool_calls":
        return all(recorder.hands_over(call.name) for call in right)
    return not isinstance(right, AnyOf | OneOf) and recorder.hands_over(right)
