"""What is hidden or redacted is on no disk, and credentials are on none at all.

Arthur refuses some rows and then hangs, so that there are dead letters, and rows that wait in the
spool: in the database and its log, while it is open and when it is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay.dead_letters.jsonl import JsonLinesStore
from arthur_relay.encoding.privacy import HIDDEN, WITHHELD
from arthur_relay.sandbox import ArthurSandbox
from tests.end_to_end.canaries import (
    SECRETS,
    TEXT,
    assert_untold,
    capture_everything,
    handler_to,
    tokens_of,
)
from tests.end_to_end.conftest import Everything
from tests.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

CREDENTIALS = tuple(secret for secret in SECRETS if secret != TEXT)


def scrub(text: str) -> str:
    return text.replace(TEXT, "[mine]")


def fails(text: str) -> str:
    raise ValueError(f"can't redact {text}")


PRIVATE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "redacted": ({"redact": scrub}, ["[mine]"]),
    "withheld": ({"redact": fails}, [WITHHELD]),
    "hidden": ({"redact": scrub, "hide_inputs": True, "hide_outputs": True}, [HIDDEN, "[mine]"]),
}
"""Settings by which the text is told to nobody, and what is told instead."""


def contents(directory: Path) -> dict[str, bytes]:
    """Return all files under a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def assert_unwritten(files: dict[str, bytes], secrets: tuple[str, ...]) -> None:
    for name, content in files.items():
        for secret in secrets:
            assert secret.encode() not in content, name


@pytest.mark.parametrize("key", [False, True], ids=["login", "key"])
@pytest.mark.parametrize("how", PRIVATE)
def test_what_nobody_is_told_is_on_no_disk(
    how: str,
    key: bool,
    canary_sandbox: ArthurSandbox,
    everything: Everything,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    settings, markers = PRIVATE[how]
    letters = tmp_path / "letters.jsonl"
    handler = handler_to(
        canary_sandbox,
        monkeypatch,
        key=key,
        spool_dir=tmp_path / "spool",
        dead_letter_file=letters,
        shutdown_timeout_seconds=0.2,
        **settings,
    )
    relay = handler.relay
    canary_sandbox.faults.fail_rows(every=1, status=400)
    capture_everything(handler)
    assert handler.flush(30).rejected == 3
    canary_sandbox.faults.reset()
    canary_sandbox.faults.hang()
    capture_everything(handler)
    wait_for(lambda: relay.stats().spooled == 3)
    opened = contents(tmp_path)
    told = (relay.stats(), relay.health(), relay.dead_letters(), *relay.dead_letters())
    result = relay.close()
    assert (result.timed_out, result.pending) == (True, 3)
    closed = contents(tmp_path)
    secrets = (*SECRETS, *tokens_of(canary_sandbox))
    for files in (opened, closed):
        assert_unwritten(files, secrets)
    # And these are the files where it would be.
    assert {"letters.jsonl", "spool/0.spool", "spool/0.spool-wal"} <= set(opened)
    for name in ("letters.jsonl", "spool/0.spool", "spool/dead-letters.sqlite"):
        for marker in markers:
            assert marker.encode() in closed[name], name
    assert_untold(everything, secrets, *told, result, relay, relay.settings)
    for _, letter in JsonLinesStore(letters, max_bytes=1 << 20).letters():
        assert TEXT.encode() not in letter.body


@pytest.mark.parametrize("how", PRIVATE)
def test_what_is_known_of_a_refused_model_is_on_no_disk(
    how: str,
    canary_sandbox: ArthurSandbox,
    everything: Everything,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    settings, markers = PRIVATE[how]
    canary_sandbox.faults.status(404, times=None, routes=("models",))
    handler = handler_to(
        canary_sandbox, monkeypatch, spool_dir=tmp_path / "spool", connect="lazy", **settings
    )
    capture_everything(handler)
    assert handler.flush(30).rejected > 0
    relay = handler.relay
    letters = relay.dead_letters()
    assert {letter.reason for letter in letters} == {"unknown model"}
    relay.close()
    secrets = (*SECRETS, *tokens_of(canary_sandbox))
    files = contents(tmp_path)
    assert_unwritten(files, secrets)
    for marker in markers:
        assert any(marker.encode() in content for content in files.values())
    assert_untold(everything, secrets, letters, relay.stats(), relay.health())


def test_credentials_are_on_no_disk_even_where_texts_are(
    canary_sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    handler = handler_to(
        canary_sandbox,
        monkeypatch,
        spool_dir=tmp_path / "spool",
        dead_letter_file=tmp_path / "letters.jsonl",
        shutdown_timeout_seconds=0.2,
    )
    canary_sandbox.faults.fail_rows(every=1, status=400, times=1)  # however few come at once
    capture_everything(handler)
    assert handler.flush(30).rejected > 0
    canary_sandbox.faults.hang()
    capture_everything(handler)
    wait_for(lambda: handler.relay.stats().spooled == 3)
    opened = contents(tmp_path)
    handler.relay.close()
    closed = contents(tmp_path)
    for files in (opened, closed):
        assert_unwritten(files, (*CREDENTIALS, *tokens_of(canary_sandbox)))
        assert TEXT.encode() in b"".join(files.values())
