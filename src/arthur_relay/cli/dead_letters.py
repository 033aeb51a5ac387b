"""`arthur-relay dead-letters`: lists, sends again and removes what Arthur did not take."""

from __future__ import annotations

import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import typer

from arthur_relay.broker.settings import BROKER_PREFIX
from arthur_relay.cli import INTERRUPTED, fail, is_interactive
from arthur_relay.cli.daemon_client import Daemon, NoAnswerError
from arthur_relay.cli.letter_rows import in_json, name_and_kind, row_of, text_of
from arthur_relay.cli.progress import progress
from arthur_relay.cli.questions import may_read_spans
from arthur_relay.cli.target import (
    READING_ROLES,
    Target,
    broker_of_environment,
    need_directory,
    other_product,
    settings_of_environment,
)
from arthur_relay.cli.top_view import products_of
from arthur_relay.cli.wide_table import print_wide_table
from arthur_relay.credentials import means_both, socket_path
from arthur_relay.dead_letters import DeadLetter, KeptLetters, LetterKey, identity
from arthur_relay.dead_letters.stores import AllStores, open_files, open_stores
from arthur_relay.destinations.engine.row_ids import RowId
from arthur_relay.encoding.product import Product, product_of_row
from arthur_relay.errors import ConfigurationError
from arthur_relay.row import RowKind
from arthur_relay.settings import RelaySettings
from arthur_relay.system.terminal import printable

REPLAYED_ROWS = 500
"""How many letters are sent before their results are read."""

FLUSH_SECONDS = 30.0
"""How long Arthur may take for that many letters."""

NAME_AT = 6
"""The place of a span's name in a line of the list."""

ROW = "row"
"""The column of the list that has the rows themselves."""

PARTLY_TAKEN = 206
"""The status of spans that the Engine has taken some of, and has not said which."""

_WORD = re.compile(r"[^\W_]+")

Kept = list[tuple[LetterKey, DeadLetter]]


def run_list(*, reasons: Sequence[str], with_text: bool) -> None:
    """Print the letters, oldest first, and how many there are of each reason."""
    counts: Counter[str] = Counter()
    products: set[Product | None] = set()
    lines: list[list[str]] = []
    with _errors_reported():
        for _, letter in _matching(_all_stores(settings_of_environment()), reasons):
            counts[letter.reason] += 1
            products.add(product_of_row(letter.body))
            name, kind = name_and_kind(letter)
            cells = [
                letter.rejected_at.isoformat(timespec="seconds"),
                letter.full_reason,
                str(letter.attempts),
                kind,
                letter.model_id,
                letter.inference_id,
                name,
            ]
            # Only what is shown is kept: rows may be large.
            lines.append([*cells, text_of(letter)] if with_text else cells)
    if lines:
        _print_table(lines, with_names=Product.ENGINE in products, with_text=with_text)
    of_each = "".join(f", {count} {printable(name)}" for name, count in counts.most_common())
    print(f"{counts.total()} dead letters{of_each}")


def _print_table(lines: list[list[str]], *, with_names: bool, with_text: bool) -> None:
    """Print the letters; names are those of spans."""
    ids = ("task", "span", "name") if with_names else ("model", "inference")
    columns = ["rejected at", "reason", "attempts", "kind", *ids]
    if with_text:
        columns.append(ROW)
    if not with_names:
        lines = [[*line[:NAME_AT], *line[NAME_AT + 1 :]] for line in lines]
    print_wide_table(columns, lines, text_column=ROW)


def run_show(inference_id: str) -> None:
    """Print all that is kept of an inference or a span, its row included.

    Args:
        inference_id: Its id; of a span, the trace's id or the span's alone will do.

    Raises:
        typer.Exit: With 1 when there is no letter of it.
    """
    kept = _matching(_all_stores(settings_of_environment()), ())
    with _errors_reported():
        found = [each for _, each in kept if inference_id in _ids(each)]
    for letter in found:
        document = {
            "inference_id": letter.inference_id,
            "model_id": letter.model_id,
            "kind": letter.kind.value,
            "reason": letter.reason,
            **({"said": letter.said} if letter.said else {}),
            "status": letter.status,
            "attempts": letter.attempts,
            "rejected_at": letter.rejected_at,
            "destination": letter.destination,
            **({"damage": letter.damage} if letter.damage else {}),
            **row_of(letter),
        }
        print(printable(in_json(document), keep="\n"))
    if not found:
        fail(f"There is no dead letter of {printable(inference_id)}.")


def _ids(letter: DeadLetter) -> set[str]:
    """Return what a letter can be asked for by: its id, and as `list` shows it."""
    found = {letter.inference_id, printable(letter.inference_id)}
    if product_of_row(letter.body) is Product.ENGINE:
        found.update(RowId.parse(letter.inference_id))
    return found


def run_replay(*, reasons: Sequence[str], dry_run: bool, adopt: bool) -> None:
    """Send letters to the Arthur of the environment once more; those that it takes are removed.

    Args:
        reasons: Only those with one of these reasons; all if there are none.
        dry_run: Whether to send none.
        adopt: Whether to send also those that were meant for another Arthur.

    Raises:
        typer.Exit: With 1 when some are left.
    """
    settings = settings_of_environment()
    kept = _all_stores(settings)
    with _errors_reported():
        found = list(_matching(kept, reasons))
    letters = [pair for pair in found if pair[1].can_be_sent]
    if len(letters) < len(found):
        print(f"{len(found) - len(letters)} can't be sent, as their rows are missing or damaged")
    if not letters:
        print("0 dead letters would be sent" if dry_run else "nothing to send")
        return
    left = 0
    if kept.has_both_products and means_both(os.environ):
        for product in dict.fromkeys(product_of_row(letter.body) for _, letter in letters):
            target = Target.of_environment(settings, product)
            own = [pair for pair in letters if product_of_row(pair[1].body) is product]
            left += _replay(kept, own, target, settings, dry_run=dry_run, adopt=adopt)
    else:
        target = Target.of_environment(settings)
        left = _replay(kept, letters, target, settings, dry_run=dry_run, adopt=adopt)
    if left:
        raise typer.Exit(1)


def _replay(
    kept: AllStores,
    letters: Kept,
    target: Target,
    settings: RelaySettings,
    *,
    dry_run: bool,
    adopt: bool,
) -> int:
    """Send letters to one Arthur. Returns how many it did not take."""
    letters = _of_product(letters, target)
    if not adopt and letters:
        letters = _ours(letters, target)
    if letters:
        letters = _without_duplicates(letters, target, settings)
    feedback = sum(letter.kind is RowKind.GROUND_TRUTH for _, letter in letters)
    if target.product is Product.ENGINE and feedback:
        print(f"{feedback} are feedback, and replace any newer feedback that their traces have")
    if dry_run or not letters:
        print(f"{len(letters)} dead letters would be sent" if dry_run else "nothing to send")
        return 0
    with _errors_reported():
        kept.take_back()
        # Letters that came out of quarantined files have new keys now.
        wanted = {identity(letter) for _, letter in letters}
        letters = [pair for pair in kept.letters() if identity(pair[1]) in wanted]
    taken, interrupted = _send(letters, target, settings)
    with _errors_reported():
        kept.remove(taken)
    left = len(letters) - len(taken)
    print(f"{len(taken)} of {len(letters)} dead letters were delivered, {left} are kept")
    if interrupted:
        fail(INTERRUPTED, code=130)
    return left


def _send(letters: Kept, target: Target, settings: RelaySettings) -> tuple[set[LetterKey], bool]:
    """Send letters. Returns the keys of those that arrived, and whether Ctrl-C ended it."""
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
        relay = target.relay(anew)
    except ConfigurationError as error:
        fail(str(error))
    taken: set[LetterKey] = set()
    interrupted = False
    with relay:
        sent = 0
        with progress("dead letters sent", len(letters)) as done:
            for part in _parts(letters):
                refused.clear()
                for _, letter in part:
                    relay.resubmit(letter)
                sent += len(part)
                try:
                    result = relay.flush(FLUSH_SECONDS)
                except KeyboardInterrupt:
                    interrupted = True
                    break  # the same: what has arrived of this part is not known
                if result.timed_out or result.delivered + result.rejected < sent:
                    break  # some may have arrived: they are sent again, with the same ids
                again = {(letter.inference_id, letter.kind) for letter in refused}
                taken |= {
                    key for key, letter in part if (letter.inference_id, letter.kind) not in again
                }
                done(len(part))
        relay.close(0)
    return taken, interrupted


def _parts(letters: Kept) -> Iterator[Kept]:
    """Yield letters in parts: ground truth last, which may wait for what it belongs to."""
    for kind in (RowKind.INFERENCE, RowKind.GROUND_TRUTH):
        of_kind = [pair for pair in letters if pair[1].kind is kind]
        for first in range(0, len(of_kind), REPLAYED_ROWS):
            yield of_kind[first : first + REPLAYED_ROWS]


def _of_product(letters: Kept, target: Target) -> Kept:
    """Leave out, and report, letters for the other one of Arthur's products."""
    ours: Kept = []
    others: Counter[Product] = Counter()
    for pair in letters:
        product = product_of_row(pair[1].body)
        if product in (None, target.product):
            ours.append(pair)
        else:
            others[product] += 1
    for product, count in others.items():
        print(f"{count} are left alone: they are {other_product(product, target)}")
    return ours


def _ours(letters: Kept, target: Target) -> Kept:
    """Leave out, and report, letters for another Arthur than that of the environment."""
    url = target.credentials.url
    path = socket_path(url)
    if path is not None:  # a relay: its own destination counts
        with suppress(NoAnswerError):
            status = Daemon(path).status()
            of_product = [
                each for each in products_of(status) if each.get("product") == target.product
            ]
            url = str((of_product or [status])[0].get("destination", url))
    ours = [pair for pair in letters if pair[1].destination == url]
    others = Counter(letter.destination for _, letter in letters if letter.destination != url)
    for destination, count in others.items():
        print(
            f"{count} were meant for {printable(destination)} and are left alone; --adopt sends"
            f" them to {printable(url)}"
        )
    return ours


def _without_duplicates(letters: Kept, target: Target, settings: RelaySettings) -> Kept:
    """Leave out, and report, spans of which the Engine has some, if it can't be asked which."""
    mixed = sum(letter.status == PARTLY_TAKEN for _, letter in letters)
    if target.product is not Product.ENGINE or not mixed:
        return letters
    if (
        may_read_spans(target.credentials, settings) is not False
    ):  # where unknown, it is asked later
        return letters
    print(
        f"{mixed} are left alone: the Engine has taken some of them, and the key may not read"
        f" which; use one that may read traces ({READING_ROLES})"
    )
    return [pair for pair in letters if pair[1].status != PARTLY_TAKEN]


def run_purge(*, reasons: Sequence[str], yes: bool) -> None:
    """Remove letters, once somebody has agreed.

    Args:
        reasons: Only those with one of these reasons; all if there are none.
        yes: Whether somebody has agreed already.

    Raises:
        typer.Exit: With 1 when nobody has, with 2 when nobody can be asked.
    """
    kept = _all_stores(settings_of_environment())
    with _errors_reported():
        kept.take_back()
        keys = {key for key, _ in _matching(kept, reasons)}
        if keys and not yes:
            _ask(f"Remove {len(keys)} dead letters for good?")
        removed = kept.remove(keys)
    print(f"{removed} dead letters were removed")


def _ask(question: str) -> None:
    """Ask at the terminal; without one, or with another answer than yes, the command ends."""
    if not is_interactive():
        fail("There is no terminal to ask at: give --yes if you mean it.", code=2)
    if not typer.confirm(question):
        raise typer.Exit(1)


def _all_stores(settings: RelaySettings) -> AllStores:
    """Return the stores that outlive the applications: the broker's, the spool's and the file."""
    broker = broker_of_environment(settings)
    if broker is None and settings.spool_dir is None and settings.dead_letter_file is None:
        fail(
            "No dead letters are kept: set ARTHUR_RELAY_SPOOL_DIR or ARTHUR_RELAY_DEAD_LETTER_FILE"
            f" to what the applications have, or {BROKER_PREFIX}URL to the fleet's broker.",
            code=2,
        )
    if settings.spool_dir is not None:
        need_directory(settings.spool_dir, "ARTHUR_RELAY_SPOOL_DIR")
    if settings.dead_letter_file is not None:
        need_directory(settings.dead_letter_file.parent, "ARTHUR_RELAY_DEAD_LETTER_FILE")
    stores: list[KeptLetters] = []
    if broker is not None:
        try:
            # Its client may be missing.
            from arthur_relay.broker.kept_letters import BrokerLetters  # noqa: PLC0415 - see above
        except ConfigurationError as error:
            fail(str(error), code=2)
        stores.append(BrokerLetters(broker))
    if settings.spool_dir is not None:
        stores += open_stores(settings, with_damaged=True)
    else:
        stores += open_files(settings, with_damaged=True)
    return AllStores(stores, has_both_products=broker is not None)


def _matching(kept: AllStores, reasons: Sequence[str]) -> Iterator[tuple[LetterKey, DeadLetter]]:
    return (
        pair
        for pair in kept.letters()
        if not reasons or any(_is_of(pair[1], each) for each in reasons)
    )


def _is_of(letter: DeadLetter, reason: str) -> bool:
    """Return whether a letter has a reason that a person has read somewhere.

    The list has it with Arthur's words; the page writes spaces for underscores, and the broker's
    count cuts long ones.
    """
    shown, wanted = printable(letter.full_reason), printable(reason)
    is_cut = wanted.endswith("…")
    words, first = _words(shown), _words(wanted)
    if not first:
        return shown == wanted
    return f" {words} ".find(f" {first}" if is_cut else f" {first} ") >= 0


def _words(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


@contextmanager
def _errors_reported() -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        fail(f"The dead letters can't be used: {error}.")
    except ConfigurationError as error:
        fail(str(error))
