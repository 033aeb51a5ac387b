"""`arthur-relay dead-letters`, on what a relay left in a spool, or in a file."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from arthur_relay import FlushResult, Inference, Relay, RelaySettings
from arthur_relay.cli.app import _app
from arthur_relay.dead_letters import DeadLetter
from arthur_relay.dead_letters.sqlite import FILE_NAME, PAGE_BYTES, SqliteStore
from arthur_relay.dead_letters.stores import open_stores
from arthur_relay.row import RowKind
from arthur_relay.sandbox import ArthurSandbox
from tests.readme import command, commands_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_python

SECRET = "the words of a user"


@pytest.fixture(params=["spool", "file"])
def _left(
    request: pytest.FixtureRequest,
    sandbox: ArthurSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three rows that Arthur refused, and one that it took."""
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    if request.param == "spool":
        monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(tmp_path / "spool"))
    else:
        monkeypatch.setenv("ARTHUR_RELAY_DEAD_LETTER_FILE", str(tmp_path / "letters.jsonl"))
    for name, status in {"i1": 400, "i2": 400, "i3": 422}.items():
        sandbox.faults.fail_rows(containing=name, status=status)
    with Relay.from_env(settings=RelaySettings(flush_interval_seconds=0)) as relay:
        for number in range(4):
            relay.capture(Inference(input_text=SECRET, output_text="a", inference_id=f"i{number}"))
        result = relay.flush(30)
        assert (result.delivered, result.rejected) == (1, 3)
        assert len(relay.dead_letters()) == 3


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(_app, ["dead-letters", *arguments], env={"COLUMNS": "80"})
    assert result.exit_code == status, result.output
    return result.output


def arrived(sandbox: ArthurSandbox) -> list[str]:
    return sorted(row["partner_inference_id"] for row in sandbox.inferences)


@pytest.mark.usefixtures("_left")
def test_a_list_shows_no_text_unless_asked() -> None:
    output = run("list")
    assert [name for name in ("i0", "i1", "i2", "i3") if name in output] == ["i1", "i2", "i3"]
    assert output.splitlines()[-1] == "3 dead letters, 2 row 400, 1 row 422"
    assert SECRET not in output
    assert SECRET in run("list", "--with-text")
    assert run("list", "--reason", "row 422").splitlines()[-1] == "1 dead letters, 1 row 422"


@pytest.mark.usefixtures("_left")
def test_ctrl_c_in_a_replay_keeps_what_was_delivered(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = Relay.flush
    flushed: list[float | None] = []

    def interrupted(self: Relay, timeout: float | None = None) -> FlushResult:
        flushed.append(timeout)
        if len(flushed) == 3:
            raise KeyboardInterrupt
        return flush(self, timeout)

    monkeypatch.setattr("arthur_relay.cli.dead_letters.REPLAYED_ROWS", 1)
    monkeypatch.setattr(Relay, "flush", interrupted)
    sandbox.faults.reset()
    output = run("replay", status=130)
    assert "2 of 3 dead letters were delivered, 1 are kept\n" in output
    assert "arthur-relay: interrupted.\n" in output
    monkeypatch.undo()
    assert len(arrived(sandbox)) >= 3


@pytest.mark.usefixtures("_left")
def test_show_has_all_of_one() -> None:
    found = json.loads(run("show", "i3"))
    assert found["row"]["inference_data"]["input_text"] == SECRET
    assert (found["reason"], found["status"], found["attempts"]) == ("row 422", 422, 1)
    run("show", "i0", status=1)


@pytest.mark.usefixtures("_left")
def test_the_reason_is_in_arthurs_words() -> None:
    said = "the sandbox was told to fail this row"
    assert run("list").count(f"row 400: {said}") == 2
    assert json.loads(run("show", "i3"))["said"] == said


def test_what_arthur_quotes_of_a_row_is_nowhere(
    sandbox: ArthurSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt that has a word of the sandbox's answer could be what it quotes."""
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(tmp_path / "spool"))
    sandbox.faults.fail_rows(containing="i", status=400)
    with Relay.from_env(settings=RelaySettings(flush_interval_seconds=0)) as relay:
        relay.capture(Inference(input_text="A sandbox?", output_text="a", inference_id="i1"))
        assert relay.flush(30).rejected == 1
        (letter,) = relay.dead_letters()
    assert (letter.reason, letter.said, letter.full_reason) == ("row 400", "", "row 400")
    assert "told" not in run("list")


@pytest.mark.parametrize(
    ("reason", "said", "asked"),
    [
        ("row 400", "", "row 400"),
        ("row 400", "attribute 'x' is unknown", "row 400"),
        ("row 400", "attribute 'x' is unknown", "ROW 400: attribute 'x' is unknown"),
        ("row 400", "attribute 'x' is unknown", "attribute 'x'"),
        ("login refused", "", "login refused"),
        ("retry_time_exceeded", "", "retry_time_exceeded"),
        ("retry_time_exceeded", "", "retry time exceeded"),  # as the page has it
        ("internal error (ValueError)", "", "internal error (ValueError)"),
        ("the key may not read " + "x" * 60, "", "the key may not read " + "x" * 40 + "\u2026"),
        ("row 400\x1b[2J", "", "row 400\\u001b[2J"),
        ("row 400\x1b[2J", "", "row 400\x1b[2J"),
        ("?", "", "?"),
    ],
)
def test_a_reason_is_asked_for_as_people_have_read_it(
    reason: str,
    said: str,
    asked: str,
    sandbox: ArthurSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(tmp_path))
    (keeper,) = open_stores(RelaySettings())
    keeper.add([replace(letter_of(sandbox, "i1"), reason=reason, said=said)])
    keeper.add([replace(letter_of(sandbox, "i2"), reason="row 4000")])
    assert run("list", "--reason", asked).splitlines()[-1].startswith("1 dead letters, 1 ")
    assert run("list", "--reason", "row 40", "--reason", "x").endswith("0 dead letters\n") is (
        "'x'" not in said
    )
    both = run("list", "--reason", asked, "--reason", "row 4000")
    assert both.splitlines()[-1].startswith("2 dead letters")
    assert run("purge", "--yes", "--reason", asked) == "1 dead letters were removed\n"


@pytest.mark.parametrize("command", ["list", "replay", "purge"])
@pytest.mark.parametrize("variable", ["SPOOL_DIR", "DEAD_LETTER_FILE"])
def test_a_directory_that_is_not_there_is_no_empty_list(
    command: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ARTHUR_RELAY_{variable}", str(tmp_path / "nowhere" / "letters"))
    if variable == "SPOOL_DIR":
        monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(tmp_path / "nowhere"))
    found = run(command, status=2)
    assert f"There is no directory {tmp_path / 'nowhere'}" in found
    assert f"ARTHUR_RELAY_{variable}" in found
    assert len(found.splitlines()) == 1
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.usefixtures("_left")
def test_a_replay_delivers_what_arthur_takes_by_now(sandbox: ArthurSandbox) -> None:
    assert run("replay", "--dry-run") == "3 dead letters would be sent\n"
    assert arrived(sandbox) == ["i0"]
    sandbox.faults.reset()
    sandbox.faults.fail_rows(containing="i2", status=400)
    assert "1 of 2 dead letters were delivered, 1 are kept" in run(
        "replay", "--reason", "row 400", status=1
    )
    assert arrived(sandbox) == ["i0", "i1"]
    assert run("list").splitlines()[-1] == "2 dead letters, 1 row 400, 1 row 422"
    sandbox.faults.reset()
    assert "2 of 2 dead letters were delivered, 0 are kept" in run("replay")
    assert arrived(sandbox) == ["i0", "i1", "i2", "i3"]
    assert run("replay") == "nothing to send\n"


@pytest.mark.usefixtures("_left")
def test_a_replay_that_fails_keeps_all(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arthur_relay.cli.dead_letters.FLUSH_SECONDS", 0.1)
    monkeypatch.setenv("ARTHUR_RELAY_CONNECT_TIMEOUT_SECONDS", "0.1")
    sandbox.go_away()
    assert "0 of 3 dead letters were delivered, 3 are kept" in run("replay", status=1)
    # Nor is one lost that does not fit into the queue.
    monkeypatch.setenv("ARTHUR_RELAY_QUEUE_SIZE", "1")
    monkeypatch.setenv("ARTHUR_RELAY_DISABLED", "true")
    assert "3 are kept" in run("replay", status=1)
    assert run("list").splitlines()[-1].startswith("3 dead letters")


@pytest.mark.usefixtures("_left")
def test_a_purge_removes() -> None:
    assert run("purge", "--yes", "--reason", "row 422") == "1 dead letters were removed\n"
    assert run("purge", "--yes") == "2 dead letters were removed\n"
    assert run("list") == "0 dead letters\n"


@pytest.mark.usefixtures("_left")
def test_a_purge_asks_and_says_what_to_do_where_it_can_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "give --yes if you mean it" in run("purge", status=2)
    monkeypatch.setattr("arthur_relay.cli.dead_letters.is_interactive", lambda: True)
    for answer, status in (("n", 1), ("", 1), ("y", 0)):
        found = CliRunner().invoke(_app, ["dead-letters", "purge"], input=f"{answer}\n")
        assert found.exit_code == status, found.output
        assert "Remove 3 dead letters for good?" in found.output
    assert run("list") == "0 dead letters\n"
    assert run("purge") == "0 dead letters were removed\n"  # there is nothing to ask for


@pytest.mark.usefixtures("_left")
def test_the_daemons_file_of_variables_says_where_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ("ARTHUR_RELAY_SPOOL_DIR", "ARTHUR_RELAY_DEAD_LETTER_FILE")
    lines = [f"{name}={os.environ[name]}\n" for name in names if name in os.environ]
    file = tmp_path / "daemon.env"
    file.write_text("".join(lines))
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert "No dead letters are kept" in run("list", status=2)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # what the command adds is its own
    assert run("list", "--env-file", str(file)).splitlines()[-1].startswith("3 dead letters")
    assert "can't be read" in run("list", "--env-file", str(tmp_path / "none"), status=2)


@pytest.mark.usefixtures("_left")
def test_rows_that_are_none_are_shown_and_not_sent(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    letters = [
        DeadLetter(
            inference_id=name,
            model_id=sandbox.model_id,
            kind=RowKind.INFERENCE,
            reason="row 400\x1b[2J",
            status=400,
            attempts=1,
            rejected_at=datetime(2026, 11, 25, tzinfo=UTC),
            destination=sandbox.url,
            body=body,
        )
        for name, body in {"e": b"", "n": b"\xff{", "s": b'{"a": "\\ud800"}'}.items()
    ]
    for keeper in open_stores(RelaySettings()):
        keeper.add(letters)
    output = run("list", "--with-text")
    assert "\x1b" not in output
    assert "6 dead letters" in output
    assert json.loads(run("show", "e"))["row"] is None
    assert json.loads(run("show", "n"))["row_text"] == "\\xff{"
    assert "ud800" in run("show", "s")
    sandbox.faults.reset()
    output = run("replay")
    assert "3 can't be sent, as their rows are missing or damaged" in output
    assert "3 of 3 dead letters were delivered" in output
    assert arrived(sandbox) == ["i0", "i1", "i2", "i3"]
    assert run("purge", "--yes") == "3 dead letters were removed\n"


@pytest.mark.usefixtures("_left")
def test_letters_for_another_arthur_are_sent_there_on_purpose_only(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ArthurSandbox(model_id=sandbox.model_id) as other:
        for name, value in other.environment().items():
            monkeypatch.setenv(name, value)
        output = run("replay")
        assert f"3 were meant for {sandbox.url} and are left alone; --adopt sends them" in output
        assert other.inferences == []
        assert "3 of 3 dead letters were delivered" in run("replay", "--adopt")
        assert arrived(other) == ["i1", "i2", "i3"]
    assert run("list") == "0 dead letters\n"


def test_without_a_place_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPOOL_DIR", "DEAD_LETTER_FILE"):
        monkeypatch.delenv(f"ARTHUR_RELAY_{name}", raising=False)
    assert "set ARTHUR_RELAY_SPOOL_DIR or ARTHUR_RELAY_DEAD_LETTER_FILE" in run("list", status=2)


def letter_of(sandbox: ArthurSandbox, name: str, status: int = 400) -> DeadLetter:
    row = {
        "partner_inference_id": name,
        "inference_timestamp": "2026-11-25T12:00:00Z",
        "inference_data": {"input_text": SECRET, "output_text": "a"},
    }
    return DeadLetter(
        inference_id=name,
        model_id=sandbox.model_id,
        kind=RowKind.INFERENCE,
        reason=f"row {status}",
        status=status,
        attempts=1,
        rejected_at=datetime(2026, 11, 25, 12, 0, tzinfo=UTC),
        destination=sandbox.url,
        body=json.dumps(row).encode(),
    )


def overwrite(file: Path, page: int) -> None:
    with file.open("r+b") as stream:
        stream.seek((page - 1) * PAGE_BYTES)
        stream.write(b"\xee" * PAGE_BYTES)


@pytest.fixture
def spool(sandbox: ArthurSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spool with letters in three files: two that were set aside, and one that is damaged."""
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(directory))
    keeper = SqliteStore(directory, max_bytes=1 << 20)
    for at, status in ((0, 400), (20, 422), (40, 400)):
        keeper.add([letter_of(sandbox, f"i{at + number}", status) for number in range(20)])
        overwrite(directory / FILE_NAME, 1)
        if at < 40:
            (directory / FILE_NAME).rename(directory / f"dead-letters-damaged-{at:02}.sqlite")
    overwrite(directory / "dead-letters-damaged-20.sqlite", 6)  # that costs a few letters
    return directory


def shown() -> set[str]:
    return {word for word in run("list").split() if word[:1] == "i" and word[1:].isdecimal()}


def test_a_replay_sends_what_is_in_damaged_files_and_keeps_what_is_refused(
    spool: Path, sandbox: ArthurSandbox
) -> None:
    there = shown()
    assert 40 < len(there) < 60, "most of each file can be read"
    assert run("replay", "--dry-run") == f"{len(there)} dead letters would be sent\n"
    assert len(list(spool.glob("*-damaged-*"))) == 2, "to look changes nothing"
    sandbox.faults.fail_rows(containing="i7", status=400)
    of_400 = {name for name in there if not 20 <= int(name[1:]) < 40}
    output = run("replay", "--reason", "row 400", status=1)
    assert f"{len(of_400) - 1} of {len(of_400)} dead letters were delivered, 1 are kept" in output
    assert set(arrived(sandbox)) == of_400 - {"i7"}
    assert shown() == there - of_400 | {"i7"}
    sandbox.faults.reset()
    run("replay")
    assert set(arrived(sandbox)) == there
    assert len(arrived(sandbox)) == len(there), "each once"
    assert run("replay") == "nothing to send\n"
    assert shown() == set()


def test_a_purge_removes_what_is_in_damaged_files_and_no_more(spool: Path) -> None:
    there = shown()
    of_422 = {name for name in there if 20 <= int(name[1:]) < 40}
    assert (
        run("purge", "--yes", "--reason", "row 422") == f"{len(of_422)} dead letters were removed\n"
    )
    assert shown() == there - of_422
    assert json.loads(run("show", "i41"))["reason"] == "row 400"
    assert run("purge", "--yes") == f"{len(there - of_422)} dead letters were removed\n"
    assert shown() == set()
    assert not list(spool.glob("*-damaged-*"))


@pytest.mark.usefixtures("_left")
def test_the_commands_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arthur_relay.cli.dead_letters.is_interactive", lambda: True)
    outputs = {}
    for words in commands_of(command("dead letters", "docs/dead-letters.md")):
        given = ["i3" if word == "ID" else word for word in words]
        assert given[:2] == ["arthur-relay", "dead-letters"]
        result = CliRunner().invoke(_app, given[1:], input="y\n", env={"COLUMNS": "80"})
        assert result.exit_code == 0, result.output
        outputs[given[2]] = result.output
    assert outputs["list"].splitlines()[-1] == "3 dead letters, 2 row 400, 1 row 422"
    assert json.loads(outputs["show"])["reason"] == "row 422"
    assert outputs["replay"] == "3 dead letters would be sent\n"
    assert "[y/N]" in outputs["purge"]
    assert run("list").splitlines()[-1].startswith("0 dead letters")
