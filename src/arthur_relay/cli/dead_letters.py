"""`arthur-relay dead-letters`: lists, sends again and removes what Arthur did not take."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from arthur_relay.cli import fail
from arthur_relay.cli.daemon_client import Daemon, NoAnswerError
from arthur_relay.credentials import credentials_from_environment, socket_path
from arthur_relay.dead_letters import DeadLetter, LetterKey, identity
from arthur_relay.dead_letters.stores import AllStores, open_stores
from arthur_relay.errors import ConfigurationError
from arthur_relay.relay import Relay
from arthur_relay.settings import RelaySettings
from arthur_relay.system.terminal import printable

REPLAYED_ROWS = 500
"""How many letters are sent before their results are read."""

FLUSH_SECONDS = 30.0
"""How long Arthur may take for that many letters."""

WIDTH = 1_000_000

Kept = list[tuple[LetterKey, DeadLetter]]


def run_list(*, reason: str | None, with_text: bool) -> None:
    """Print the letters, oldest first, and how many there are of each reason."""
    # Wider than any terminal, which breaks lines by itself: an id that is cut is of no use.
    console = Console(highlight=False, soft_wrap=True, width=WIDTH)
    table = Table(box=None, pad_edge=False)
    for name in ("rejected at", "reason", "attempts", "kind", "model", "inference"):
        table.add_column(name, no_wrap=True, overflow="fold")
    if with_text:
        table.add_column("row", overflow="fold")
    counts: Counter[str] = Counter()

    with _errors_reported():
        for _, letter in _matching(_all_stores(_settings()), reason):
            counts[letter.reason] += 1
            cells = [
                letter.rejected_at.isoformat(timespec="seconds"),
                letter.reason,
                str(letter.attempts),
                letter.kind.value,
                letter.model_id,
                letter.inference_id,
            ]
            # Only what is shown is kept: rows may be large.
            cells += [_text(letter.body)] if with_text else []
            table.add_row(*[Text(printable(cell)) for cell in cells])

    if counts:
        console.print(table)
    of_each = "".join(f", {count} {printable(name)}" for name, count in counts.most_common())
    print(f"{counts.total()} dead letters{of_each}")


def run_show(inference_id: str) -> None:
    """Print all that is kept of an inference, its row included.

    Raises:
        typer.Exit: With 1 when there is no letter of it.
    """
    kept = _matching(_all_stores(_settings()), None)
    # The id itself, or the form in which `list` shows it.
    with _errors_reported():
        found = [
            each
            for _, each in kept
            # The id itself, or the form in which `list` shows it.
            if inference_id in (each.inference_id, printable(each.inference_id))
        ]
    for letter in found:
        document = {
            "inference_id": letter.inference_id,
            "model_id": letter.model_id,
            "kind": letter.kind.value,
            "reason": letter.reason,
            "status": letter.status,
            "attempts": letter.attempts,
            "rejected_at": letter.rejected_at,
            "destination": letter.destination,
            **({"damage": letter.damage} if letter.damage else {}),
            **_row(letter.body),
        }
        print(printable(_json(document), keep="\n"))
    if not found:
        fail(f"There is no dead letter of inference {printable(inference_id)}.")


def run_replay(*, reason: str | None, dry_run: bool, adopt: bool) -> None:
    """Send letters to the Arthur of the environment once more; those that it takes are removed.

    Args:
        reason: Only those with this reason.
        dry_run: Whether to send none.
        adopt: Whether to send also those that were meant for another Arthur.

    Raises:
        typer.Exit: With 1 when some are left.
    """
    settings = _settings()
    kept = _all_stores(settings)
    with _errors_reported():
        found = list(_matching(kept, reason))
    letters = [pair for pair in found if pair[1].can_be_sent]
    if len(letters) < len(found):
        print(f"{len(found) - len(letters)} can't be sent, as their rows are missing or damaged")
    if not adopt and letters:
        letters = _ours(letters, settings)
    if dry_run or not letters:
        print(f"{len(letters)} dead letters would be sent" if dry_run else "nothing to send")
        return
    with _errors_reported():
        kept.take_back()
        # Letters that came out of quarantined files have new keys now.
        wanted = {identity(letter) for _, letter in letters}
        letters = [pair for pair in kept.letters() if identity(pair[1]) in wanted]
    taken = _send(letters, settings)
    with _errors_reported():
        kept.remove(taken)
    left = len(letters) - len(taken)
    print(f"{len(taken)} of {len(letters)} dead letters were delivered, {left} are kept")
    if left:
        raise typer.Exit(1)


def _send(letters: Kept, settings: RelaySettings) -> set[LetterKey]:
    """Send letters, and return the keys of those that arrived."""
    refused: list[DeadLetter] = []
    # No spool and no file: what is refused again is kept where it is.
    anew = settings.model_copy(
        update={
            "spool_dir": None,
            "dead_letter_file": None,
            "on_dead_letter": refused.append,
            "disabled": False,  # it is meant for applications, not for this command
        }
    )
    try:
        relay = Relay.from_env(settings=anew)
    except ConfigurationError as error:
        fail(str(error))
    taken: set[LetterKey] = set()
    with relay:
        for first in range(0, len(letters), REPLAYED_ROWS):
            part = letters[first : first + REPLAYED_ROWS]
            refused.clear()
            for _, letter in part:
                relay.resubmit(letter)
            result = relay.flush(FLUSH_SECONDS)
            if result.timed_out or result.delivered + result.rejected < first + len(part):
                break  # some may have arrived: they are sent again, with the same ids
            again = {(letter.inference_id, letter.kind) for letter in refused}
            taken |= {
                key for key, letter in part if (letter.inference_id, letter.kind) not in again
            }
        relay.close(0)
    return taken


def _ours(letters: Kept, settings: RelaySettings) -> Kept:
    """Leave out, and report, letters for another Arthur than that of the environment."""
    try:
        url = credentials_from_environment(allow_insecure=settings.allow_insecure).url
    except ConfigurationError as error:
        fail(str(error))
    path = socket_path(url)
    if path is not None:  # a relay: its own destination counts
        with suppress(NoAnswerError):
            url = str(Daemon(path).status().get("destination", url))
    ours = [pair for pair in letters if pair[1].destination == url]
    others = Counter(letter.destination for _, letter in letters if letter.destination != url)
    for destination, count in others.items():
        print(
            f"{count} were meant for {printable(destination)} and are left alone; --adopt sends"
            f" them to {printable(url)}"
        )
    return ours


def run_purge(*, reason: str | None) -> None:
    """Remove letters."""
    kept = _all_stores(_settings())
    with _errors_reported():
        kept.take_back()
        removed = kept.remove({key for key, _ in _matching(kept, reason)})
    print(f"{removed} dead letters were removed")


def _settings() -> RelaySettings:
    try:
        return RelaySettings()
    except ConfigurationError as error:
        fail(str(error))


def _all_stores(settings: RelaySettings) -> AllStores:
    """Return the stores that outlive the applications: the spool's and the file."""
    if settings.spool_dir is None and settings.dead_letter_file is None:
        fail(
            "No dead letters are kept: set ARTHUR_RELAY_SPOOL_DIR or ARTHUR_RELAY_DEAD_LETTER_FILE"
            " to what the applications have."
        )
    stores = open_stores(settings, with_damaged=True)
    return AllStores(stores if settings.spool_dir is not None else stores[1:])


def _matching(kept: AllStores, reason: str | None) -> Iterator[tuple[LetterKey, DeadLetter]]:
    return (pair for pair in kept.letters() if reason is None or pair[1].reason == reason)


def _text(body: bytes) -> str:
    return body.decode(errors="backslashreplace")


def _row(body: bytes) -> dict[str, object]:
    """Return a row as a JSON value, or as a text if it is not JSON."""
    if not body:
        return {"row": None}
    try:
        return {"row": orjson.loads(body)}
    except ValueError:
        return {"row_text": _text(body)}


def _json(document: dict[str, object]) -> str:
    try:
        return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    except TypeError:  # half of a surrogate pair, or a number that is too large
        return json.dumps(document, indent=2, default=str)


@contextmanager
def _errors_reported() -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        fail(f"The dead letters can't be used: {error}.")
