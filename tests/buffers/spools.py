"""Spools for tests: on a clock of their own, and left as the end of a process leaves them."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from pathlib import Path

from arthur_relay.buffers.spool.buffer import NOBODY, Spool
from arthur_relay.buffers.spool.directory import SpoolDirectory
from arthur_relay.destinations.scope.encoder import ScopeRowFormat
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.row import Row, RowOwner
from arthur_relay.testing import LLM_ATTRIBUTES
from tests.clock import STARTED_AT, Clock

MIB = 1024 * 1024

made: list[Spool] = []
"""The spools of the test that runs; `close_all` closes their files after it."""


def close_all() -> None:
    """Close the files of all spools that a test has made and left open."""
    for spool in made:
        for part in spool._segments:
            part.file.close()
    made.clear()


def model_text(model_id: str) -> str:
    """Return the text that is kept of a model, for a start while Arthur is away."""
    return ScopeRowFormat().schema_to_text(ModelSchema(model_id, LLM_ATTRIBUTES))


def new_spool(
    path: Path,
    clock: Clock | None = None,
    *,
    max_bytes: int = 256 * MIB,
    power_safe: bool = False,
    started_at: datetime = STARTED_AT,
    owner: RowOwner = NOBODY,
) -> Spool:
    spool = Spool(
        SpoolDirectory(path),
        max_bytes=max_bytes,
        power_safe=power_safe,
        clock=clock or Clock(started_at),
        owner=lambda: owner,
    )
    made.append(spool)
    return spool


def connection_of(spool: Spool) -> sqlite3.Connection:
    return spool._segments[0].file._connection


def crash(spool: Spool) -> None:
    """Let go of everything as the end of a process does: nothing is written any more."""
    for part in spool._segments:
        part.file.close()
    spool.abandon()


def remember(spool: Spool, model_id: str) -> None:
    spool.schemas.keep(
        model_id, ScopeRowFormat().schema_to_text(ModelSchema(model_id, LLM_ATTRIBUTES))
    )


def remembered(spool: Spool) -> list[ModelSchema]:
    """Return the schemas that a spool has kept, each of which has to be whole."""
    found = [ScopeRowFormat().schema_from_text(*each) for each in spool.schemas.texts().items()]
    whole = [schema for schema in found if schema is not None]
    assert len(whole) == len(found)
    return whole


def rows_of(count: int, first: int = 0, *, size: int = 100) -> list[Row]:
    return [Row(f"r{number}", "m", b"x" * size, epoch=3) for number in range(first, first + count)]


def ids(rows: list[Row]) -> list[str]:
    return [row.id for row in rows]
