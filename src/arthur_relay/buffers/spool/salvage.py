"""Reads the undamaged rows of a damaged spool file, for a new file."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from arthur_relay.buffers.schema_cache import unseal
from arthur_relay.buffers.spool.file_format import (
    APPLICATION_ID,
    MOST_SEQ,
    PAGE_BYTES,
    history_of,
    owner_of,
    times_cut,
)
from arthur_relay.row import Row, RowKind, RowOwner
from arthur_relay.system.sqlite_pages import Pages, Record, Value

_COLUMNS_OF_1 = 8
"""The columns of a row in the format's first version."""

_DEFAULTS: tuple[Value, ...] = (0, None, 0, None, None)
"""The values of the columns that were added since."""

_CRC = 3
"""Which of those is the body's checksum; the others are the history."""


@dataclass(slots=True)
class Salvage:
    """The readable content of a damaged file.

    Attributes:
        path: The damaged file.
        until: The greatest sequence number that it can have.
        rows: How many rows it had, or None when this cannot be read.
        last_seq: The last sequence number that was used, as far as is known.
        strays: Rows with an impossible number, each with the time when it was stored.
        models: Descriptions of models, by id.
        owners: The owners that it names; usually one.
        never_had_owner: Whether it is of the first version, whose files name no owner.
    """

    path: Path
    until: int = MOST_SEQ
    rows: int | None = None
    last_seq: int = 0
    strays: list[tuple[Row, float]] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    owners: set[RowOwner] = field(default_factory=set)
    never_had_owner: bool = False

    @property
    def owner(self) -> RowOwner | None:
        """The owner of the rows, or None when the file names none or more than one."""
        return next(iter(self.owners)) if len(self.owners) == 1 else None

    def read(self) -> Iterator[tuple[int, Row, float]]:
        """Yield each row with its sequence number and the time when it was stored.

        A row may come twice.

        Raises:
            OSError: The file cannot be read.
        """
        pages = Pages(self.path, page_bytes=PAGE_BYTES)
        self.never_had_owner = _version(pages.header) == 1
        try:
            for record in pages.records():
                found = _row(record)
                if found is None:
                    self._learn(record[1])
                    continue
                if len(record[1]) > _COLUMNS_OF_1:
                    self.never_had_owner = False
                if 0 < found[0] <= self.until:
                    self.last_seq = max(self.last_seq, found[0])
                    yield found
                else:
                    self.strays.append(found[1:])
        finally:
            pages.close()

    def _learn(self, values: tuple[Value, ...]) -> None:
        match values:
            case (int(rows), int(last_seq)) if 0 <= rows <= last_seq <= self.until:
                self.rows, self.last_seq = rows, max(self.last_seq, last_seq)
            case (str(model_id), str(description)) if unseal(model_id, description):
                self.models[model_id] = description
            case (str(address), None | str() as organization, None | str() as principal):
                self.owners.add(owner_of(address, organization, principal))
            case ("table", "owner", *_):
                self.never_had_owner = False


def _version(header: bytes) -> int:
    """Return the format version in a file's header, or 0 when it is not a spool's."""
    version, application = header[60:64], header[68:72]
    return int.from_bytes(version, "big") if application == APPLICATION_ID.to_bytes(4, "big") else 0


def _row(record: Record) -> tuple[int, Row, float] | None:
    """Return a record as a row, or None when it is not a row or its body is damaged."""
    seq, values = record
    # A record is not rewritten when its table gets another column.
    match values:
        case (
            None,
            str(row_id),
            str(model_id),
            str(kind),
            int(epoch),
            shrunk,
            float() | int() as stored_at,
            bytes(body),
            *since_2,
        ) if len(since_2) in (0, 4, 5):
            history = [*since_2, *_DEFAULTS[len(since_2) :]]
            crc = history.pop(_CRC)
        case _:
            return None
    with suppress(ValueError, RecursionError):
        if crc is None:
            json.loads(body)  # usually detects a body that was partly overwritten
        elif crc != crc32(body):
            return None
        cut = times_cut(shrunk)
        row = Row(row_id, model_id, body, epoch, cut, RowKind(kind), history_of(history))
        return seq, row, float(stored_at)
    return None
