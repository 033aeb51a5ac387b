"""`arthur-relay dead-letters`: what Arthur did not take; looked at, sent again, or thrown away."""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from typing import NoReturn, TypeVar

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from arthur_relay.dead_letters import DeadLetter, Keeper, Key
from arthur_relay.dead_letters.chosen import chosen_keepers
from arthur_relay.errors import ConfigurationError
from arthur_relay.relay import Relay
from arthur_relay.settings import RelaySettings
from arthur_relay.terminal import printable

REPLAYED_ROWS = 500
"""Letters that are sent before it is looked at what became of them."""

FLUSH_SECONDS = 30.0
"""How long Arthur may take for so many."""

WIDTH = 1_000_000

T = TypeVar("T")
Kept = list[tuple[Key, DeadLetter]]


def run_list(*, reason: str | None, with_text: bool) -> None:
    """Print the letters, oldest first, and how many there are of each reason."""
    letters = _matching(_keeper(_settings()), reason)
    # Wider than any terminal, which breaks lines by itself: an id that is cut is of no use.
    console = Console(highlight=False, soft_wrap=True, width=WIDTH)
    table = Table(box=None, pad_edge=False)
    for name in ("rejected at", "reason", "attempts", "kind", "model", "inference"):
        table.add_column(name, no_wrap=True, overflow="fold")
    if with_text:
        table.add_column("row", overflow="fold")
    for _, letter in letters:
        cells = [
            letter.rejected_at.isoformat(timespec="seconds"),
            letter.reason,
            str(letter.attempts),
            letter.kind.value,
            letter.model_id,
            letter.inference_id,
        ]
        shown = [*cells, letter.body.decode()] if with_text else cells
        table.add_row(*[Text(printable(cell)) for cell in shown])
    if letters:
        console.print(table)
    counts = Counter(letter.reason for _, letter in letters)
    of_each = "".join(f", {count} {reason}" for reason, count in counts.most_common())
    print(printable(f"{len(letters)} dead letters{of_each}"))


def run_show(inference_id: str) -> None:
    """Print all that is kept of an inference, its row included.

    Raises:
        typer.Exit: With 1 when there is no letter of it.
    """
    letters = [each for _, each in _kept(_keeper(_settings()))]
    # As it is, or as `list` shows it.
    found = [
        each
        for each in letters
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
            "row": orjson.loads(letter.body) if letter.body else None,
        }
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
        print(printable(text, keep="\n"))
    if not found:
        _fail(f"There is no dead letter of inference {inference_id}.")


def run_replay(*, reason: str | None, dry_run: bool) -> None:
    """Send letters to the Arthur of the environment once more; those that it takes are removed.

    Raises:
        typer.Exit: With 1 when some are left.
    """
    settings = _settings()
    keeper = _keeper(settings)
    letters = [pair for pair in _matching(keeper, reason) if pair[1].body]
    if dry_run or not letters:
        print(f"{len(letters)} dead letters would be sent" if dry_run else "nothing to send")
        return
    refused: list[DeadLetter] = []
    # No spool and no file: what is refused again is kept where it is.
    anew = settings.model_copy(
        update={
            "spool_dir": None,
            "dead_letter_file": None,
            "on_dead_letter": refused.append,
            "disabled": False,  # for the applications: who types this wants them sent
        }
    )
    try:
        relay = Relay.from_env(settings=anew)
    except ConfigurationError as error:
        _fail(str(error))
    taken: set[Key] = set()
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
    _try(lambda: keeper.remove(taken))
    left = len(letters) - len(taken)
    print(f"{len(taken)} of {len(letters)} dead letters were delivered, {left} are kept")
    if left:
        raise typer.Exit(1)


def run_purge(*, reason: str | None) -> None:
    """Throw letters away."""
    keeper = _keeper(_settings())
    removed = _try(lambda: keeper.remove({key for key, _ in _matching(keeper, reason)}))
    print(f"{removed} dead letters were removed")


def _settings() -> RelaySettings:
    try:
        return RelaySettings()
    except ConfigurationError as error:
        _fail(str(error))


def _keeper(settings: RelaySettings) -> Keeper:
    """Return what outlives the applications: the spool's letters, else the file."""
    if settings.spool_dir is None and settings.dead_letter_file is None:
        _fail(
            "No dead letters are kept: set ARTHUR_RELAY_SPOOL_DIR or ARTHUR_RELAY_DEAD_LETTER_FILE"
            " to what the applications have."
        )
    keepers = chosen_keepers(settings)
    return keepers[0] if settings.spool_dir is not None else keepers[-1]


def _kept(keeper: Keeper) -> Kept:
    return _try(lambda: list(keeper.letters()))


def _matching(keeper: Keeper, reason: str | None) -> Kept:
    return [pair for pair in _kept(keeper) if reason is None or pair[1].reason == reason]


def _try(action: Callable[[], T]) -> T:
    try:
        return action()
    except (OSError, sqlite3.Error) as error:
        _fail(f"The dead letters can't be used: {error}.")


def _fail(sentence: str) -> NoReturn:
    print(f"arthur-relay: {printable(sentence)}", file=sys.stderr)
    raise typer.Exit(1)
