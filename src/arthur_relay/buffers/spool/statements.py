"""The statements that write rows into a spool's file, and the check that a row is undamaged."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar
from zlib import crc32

from arthur_relay.buffers.spool.file_format import Execute
from arthur_relay.row import History, Row, RowKind

T = TypeVar("T")

_PARTS = (1024, 256, 64, 16, 4, 1)
"""The rows of one statement. Python releases its lock for each step of a statement. While another
thread computes, such as the daemon's intake, getting it back may take longer than the step."""

_COLUMNS = "seq, id, model_id, kind, epoch, shrunk, stored_at, body, crc"
_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT = {
    size: f"INSERT INTO rows ({_COLUMNS}) VALUES {', '.join([_VALUES] * size)}"  # noqa: S608 - all ours
    for size in _PARTS
}
DELETE = {
    size: f"DELETE FROM rows WHERE seq IN ({', '.join('?' * size)})"  # noqa: S608 - no values in it
    for size in _PARTS
}
"""The statements that delete rows, by how many numbers `in_parts` yields."""

_INFERENCE = RowKind.INFERENCE.value


def insert_rows(
    execute: Execute, fresh: Sequence[tuple[int, Row]], moments: Iterable[float]
) -> None:
    """Write new rows with their numbers and the times when they were stored."""
    moment = iter(moments)
    for part in in_parts(fresh):
        values: list[object] = []
        for seq, row in part:
            # To read an enum's value takes longer than everything else here.
            kind = _INFERENCE if row.kind is RowKind.INFERENCE else row.kind.value
            epoch, shrunk = row.epoch, row.shrunk
            body = row.body
            values += (seq, row.id, row.model_id, kind, epoch, shrunk)
            values += (next(moment), body, crc32(body))
        execute(_INSERT[len(part)], values)


def write_histories(execute: Execute, histories: Iterable[tuple[int, History]]) -> None:
    """Write the histories of rows, by their numbers."""
    for seq, history in histories:
        execute(
            "UPDATE rows SET attempts = ?, since = ?, deaths = ?, unknown_since = ? WHERE seq = ?",
            (history.attempts, history.since, history.deaths, history.unknown_since, seq),
        )


def check_row(row_id: object, model_id: object, body: object, crc: object) -> None:
    """Raise TypeError if a row is damaged.

    SQLite does not check the overflow pages of long rows.
    """
    are_texts = type(row_id) is str and type(model_id) is str
    if are_texts and isinstance(body, bytes) and (crc is None or crc == crc32(body)):
        return
    raise TypeError


def in_parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the items in groups whose sizes have a statement."""
    at = 0
    for size in _PARTS:
        while len(items) - at >= size:
            yield items[at : at + size]
            at += size
