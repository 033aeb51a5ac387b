"""What can be read of a damaged spool file, row by row, goes into a new one."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from arthur_relay.buffers.spool_format import PAGE_BYTES, history_of
from arthur_relay.row import Row, RowKind
from arthur_relay.row_owner import RowOwner
from arthur_relay.sqlite_pages import Pages, Record, Value


@dataclass(slots=True)
class Salvage:
    """What was read of a file.

    Attributes:
        path: The file, which is damaged.
        rows: Rows that it had, as far as is known; None when it does not say.
        last_seq: The last sequence number that was used, as far as is known.
        models: Descriptions of models, by id.
        owner: Whose the rows are, or None when it does not say.
    """

    path: Path
    rows: int | None = None
    last_seq: int = 0
    models: dict[str, str] = field(default_factory=dict)
    owner: RowOwner | None = None

    def read(self) -> Iterator[tuple[int, Row, float]]:
        """Yield each row with its sequence number, and when it was stored; one perhaps twice.

        Raises:
            OSError: The file can't be read.
        """
        pages = Pages(self.path, page_bytes=PAGE_BYTES)
        try:
            for record in pages.records():
                found = _row(record)
                if found is not None:
                    self.last_seq = max(self.last_seq, found[0])
                    yield found
                else:
                    self._learn(record[1])
        finally:
            pages.close()

    def _learn(self, values: tuple[Value, ...]) -> None:
        match values:
            case (int(rows), int(last_seq)) if rows >= 0:
                self.rows, self.last_seq = rows, max(self.last_seq, last_seq)
            case (str(model_id), str(description)) if description.startswith("{"):
                self.models[model_id] = description
            case (str(address), None | str() as organization, None | str() as principal):
                self.owner = RowOwner(address, organization, principal)


def _row(record: Record) -> tuple[int, Row, float] | None:
    """Return a record as a row, or None when it is none, or nothing that Arthur could be sent."""
    seq, values = record
    # A record is not written anew when its table gets another column.
    match values:
        case (
            None,
            str(row_id),
            str(model_id),
            str(kind),
            int(epoch),
            int(shrunk),
            float() | int() as stored_at,
            bytes(body),
            *since_2,
        ) if seq > 0 and len(since_2) in (0, 4):
            *history, crc = since_2 or (0, None, 0, None)
        case _:
            return None
    with suppress(ValueError, RecursionError):
        if crc is None:
            json.loads(body)  # what was overwritten in the middle is found by this, as a rule
        elif crc != crc32(body):
            return None
        row = Row(row_id, model_id, body, epoch, shrunk, RowKind(kind), history_of(history))
        return seq, row, float(stored_at)
    return None
