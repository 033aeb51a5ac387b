"""`arthur-relay dead-letters`, with spans and feedback of Arthur Engine."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from arthur_relay import ArthurCallbackHandler, RelaySettings
from arthur_relay.cli import letter_rows
from arthur_relay.cli.app import _app
from arthur_relay.dead_letters.stores import open_stores
from arthur_relay.sandbox import ArthurSandbox, Role
from tests.destinations.engine.models import answer, chat
from tests.destinations.engine.spans import TRACE, row_id

from .engine import (
    SECRET,
    feedback_letter,
    mean_engine,
    mean_scope,
    scope_letter,
    span_letter,
)

if TYPE_CHECKING:
    from arthur_relay.dead_letters import DeadLetter

pytestmark = pytest.mark.one_python

REDUCED: dict[str, Any] = {"arthur_relay__dropped": "it is reduced already"}
"""An attribute of a span that is in its reduced form: it is not reduced once more."""


REPLACES = "1 are feedback, and replace any newer feedback that their traces have"


@pytest.fixture
def sandbox(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> ArthurSandbox:
    """An Arthur that the environment means as an Engine."""
    mean_engine(sandbox, monkeypatch)
    return sandbox


@pytest.fixture(autouse=True, params=["spool", "file"])
def _place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "spool":
        (tmp_path / "spool").mkdir(mode=0o700)
        monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(tmp_path / "spool"))
    else:
        monkeypatch.setenv("ARTHUR_RELAY_DEAD_LETTER_FILE", str(tmp_path / "letters.jsonl"))


def keep(*letters: DeadLetter) -> None:
    settings = RelaySettings()
    stores = open_stores(settings)
    for store in stores if settings.spool_dir is not None else stores[1:]:
        store.add(letters)


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(_app, ["dead-letters", *arguments], env={"COLUMNS": "80"})
    assert result.exit_code == status, result.output
    return result.output


def arrived(sandbox: ArthurSandbox) -> list[str]:
    return sorted(f"{span['trace_id']}-{span['span_id']}" for span in sandbox.spans)


def test_a_list_shows_task_span_name_and_kind_and_no_text(sandbox: ArthurSandbox) -> None:
    keep(span_letter(sandbox), feedback_letter(sandbox))
    output = run("list")
    head, first, second, last = output.splitlines()
    assert head.split() == [
        "rejected", "at", "reason", "attempts", "kind", "task", "span", "name",
    ]  # fmt: skip
    assert first.split()[-4:] == ["LLM", sandbox.task_id, row_id(), "ChatOpenAI"]
    assert second.split()[-3:] == ["feedback", sandbox.task_id, row_id()]
    assert last == "2 dead letters, 2 http 400"
    assert SECRET not in output
    assert SECRET in run("list", "--with-text")


def test_replayed_feedback_is_said_to_replace_a_newer_one(sandbox: ArthurSandbox) -> None:
    keep(span_letter(sandbox))
    assert "feedback" not in run("replay", "--dry-run")
    keep(feedback_letter(sandbox))
    assert run("replay", "--dry-run").splitlines()[0] == REPLACES
    assert REPLACES in run("replay")


def test_no_name_moves_the_cursor_or_fills_the_screen(sandbox: ArthurSandbox) -> None:
    keep(span_letter(sandbox, name="a\x1b[2J" + "b" * 5000))
    output = run("list")
    assert "\x1b" not in output
    assert "b" * 100 not in output


def test_show_prints_a_span_that_a_person_can_read(sandbox: ArthurSandbox) -> None:
    keep(span_letter(sandbox, metadata='{"session": ["s"]}', count=3), feedback_letter(sandbox))
    shown = run("show", row_id())
    decoder = json.JSONDecoder()
    found, end = decoder.raw_decode(shown)
    assert found["inference_id"] == row_id()
    assert found["span"] == {
        "name": "ChatOpenAI",
        "kind": "LLM",
        "trace_id": TRACE,
        "span_id": row_id().partition("-")[2],
        "parent_span_id": None,
        "start": "2023-11-14T22:13:20+00:00",
        "end": "2023-11-14T22:13:21.500000+00:00",
        "status": "unset",
        "status_message": None,
        "attributes": {
            "openinference.span.kind": "LLM",
            "input.value": SECRET,
            "metadata": {"session": ["s"]},
            "count": 3,
        },
        "events": [],
        "resource": found["span"]["resource"],
        "scope": "arthur-relay 1",
    }
    assert found["span"]["resource"]["arthur.task"] == sandbox.task_id
    rest, _ = decoder.raw_decode(shown[end:].lstrip())
    assert rest["row"] == {"annotation_score": 1, "annotation_description": "good"}
    for part in row_id().split("-"):
        assert run("show", part) == shown
    run("show", "0" * 16, status=1)


def test_without_the_extra_a_span_is_kept_and_shown_as_it_is(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = span_letter(sandbox)
    keep(letter)
    monkeypatch.setattr(letter_rows, "_can_read", lambda: False)
    found = json.loads(run("show", row_id()))
    assert "arthur-relay[engine] is not installed" in found["unread"]
    assert b64decode(found["span_base64"]) == letter.body
    assert run("list").splitlines()[1].split()[-1] == "?"


def test_a_replay_delivers_what_the_engine_takes_and_keeps_what_it_refuses(
    sandbox: ArthurSandbox,
) -> None:
    good = [span_letter(sandbox, number) for number in range(1, 8)]
    # For a NUL the Engine says 500 to all that are in the request.
    poison = span_letter(sandbox, 8, input__value="\x00", **REDUCED, reason="http 500", status=500)
    rejected = span_letter(sandbox, 9, metadata='{"a/b": 1}', **REDUCED)
    keep(*good, poison, rejected, feedback_letter(sandbox))
    assert run("replay", "--dry-run") == f"{REPLACES}\n10 dead letters would be sent\n"
    assert arrived(sandbox) == []
    output = run("replay", status=1)
    assert "8 of 10 dead letters were delivered, 2 are kept" in output
    assert arrived(sandbox) == [row_id(number) for number in range(1, 8)]
    assert [each["annotation_score"] for each in sandbox.annotations] == [1]
    left = run("list").splitlines()
    assert [row_id(8) in left[1], row_id(9) in left[2]] == [True, True]
    assert left[-1] == "2 dead letters, 1 http 500, 1 http 400"
    output = run("replay", "--reason", "http 500", status=1)
    assert "0 of 1 dead letters were delivered, 1 are kept" in output
    assert arrived(sandbox) == [row_id(number) for number in range(1, 8)]


def test_a_replay_reduces_what_the_engine_refuses(sandbox: ArthurSandbox) -> None:
    keep(span_letter(sandbox, 1, input__value="\x00"), span_letter(sandbox, 2))
    assert "2 of 2 dead letters were delivered" in run("replay")
    assert arrived(sandbox) == [row_id(1), row_id(2)]


def test_a_span_that_the_engine_has_is_not_stored_twice(sandbox: ArthurSandbox) -> None:
    letters = [span_letter(sandbox, number) for number in range(1, 4)]
    keep(*letters[:2])
    run("replay")
    keep(*letters)
    assert "3 of 3 dead letters were delivered" in run("replay")
    assert arrived(sandbox) == [row_id(number) for number in range(1, 4)]


def test_what_was_taken_in_part_waits_for_a_key_that_may_read(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.engine_keys["writer"] = Role.VALIDATION_USER
    keep(span_letter(sandbox, 1), span_letter(sandbox, 2, status=206, reason="mixed"))
    mean_engine(sandbox, monkeypatch, key="writer")
    output = run("replay")
    assert "1 are left alone: the Engine has taken some of them" in output
    assert "1 of 1 dead letters were delivered" in output
    mean_engine(sandbox, monkeypatch)
    assert "1 of 1 dead letters were delivered" in run("replay")
    assert arrived(sandbox) == [row_id(1), row_id(2)]


def test_a_letter_of_one_product_is_never_sent_to_the_other(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(span_letter(sandbox), feedback_letter(sandbox), scope_letter(sandbox))
    mean_scope(sandbox, monkeypatch)
    left_alone = (
        "2 are left alone: they are for Arthur Engine, and the environment means Arthur Scope:"
        " set ARTHUR_BASE_URL or ARTHUR_TASK_ID"
    )
    output = run("replay", "--adopt", "--dry-run")
    assert output.splitlines() == [left_alone, "1 dead letters would be sent"]
    assert "1 of 1 dead letters were delivered" in run("replay", "--adopt")
    assert arrived(sandbox) == []
    keep(scope_letter(sandbox))
    mean_engine(sandbox, monkeypatch)
    output = run("replay", "--adopt")
    assert "1 are left alone: they are for Arthur Scope" in output
    assert "2 of 2 dead letters were delivered" in output
    assert len(sandbox.inferences) == 1
    assert run("list").splitlines()[-1] == "1 dead letters, 1 row 400"
    assert run("purge", "--yes") == "1 dead letters were removed\n"


def test_letters_for_another_engine_are_sent_there_on_purpose_only(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(span_letter(sandbox))
    with ArthurSandbox(task_id=sandbox.task_id) as other:
        mean_engine(other, monkeypatch)
        assert f"1 were meant for {sandbox.url} and are left alone" in run("replay")
        assert "1 of 1 dead letters were delivered" in run("replay", "--adopt")
        assert arrived(other) == [row_id()]
    assert arrived(sandbox) == []


def test_a_replay_needs_no_task_of_its_own(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(span_letter(sandbox))
    monkeypatch.delenv("ARTHUR_TASK_ID")
    assert "1 of 1 dead letters were delivered" in run("replay")


def test_a_replay_that_fails_keeps_all(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arthur_relay.cli.dead_letters.FLUSH_SECONDS", 0.1)
    keep(span_letter(sandbox, 1), span_letter(sandbox, 2))
    sandbox.go_away()
    assert "0 of 2 dead letters were delivered, 2 are kept" in run("replay", status=1)
    sandbox.come_back()
    monkeypatch.setattr("arthur_relay.cli.dead_letters.FLUSH_SECONDS", 30)
    assert "2 of 2 dead letters were delivered" in run("replay")


def test_rows_that_are_cut_are_shown_and_not_sent(sandbox: ArthurSandbox) -> None:
    letter = span_letter(sandbox)
    cut = replace(letter, body=letter.body[:-1])
    broken = replace(letter, inference_id="b", body=b"\x0a\x02\xff\xff")
    keep(replace(cut, inference_id="c"), broken)
    assert "ChatOpenAI" in json.loads(run("show", "c"))["row_text"]
    assert "no request of OpenTelemetry" in json.loads(run("show", "b"))["unread"]
    assert run("list").splitlines()[-1].startswith("2 dead letters")
    assert "1 can't be sent, as their rows are missing or damaged" in run("replay", status=1)


def test_what_a_handler_left_is_shown_and_sent_again(sandbox: ArthurSandbox) -> None:
    sandbox.faults.fail_rows(every=1)
    handler = ArthurCallbackHandler.from_env(settings=RelaySettings(flush_interval_seconds=0))
    chat(answer("Hello")).invoke(SECRET, config={"callbacks": [handler]})
    result = handler.relay.close(30)
    assert (result.delivered, result.rejected) == (0, 1)
    (line,) = [each for each in run("list").splitlines() if " LLM " in each]
    shown: dict[str, Any] = json.loads(run("show", line.split()[-2]))
    assert SECRET in str(shown["span"]["attributes"]["llm.input_messages.0.message.content"])
    sandbox.faults.reset()
    assert "1 of 1 dead letters were delivered" in run("replay")
    assert len(sandbox.spans) == 1
