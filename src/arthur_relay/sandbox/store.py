"""The store: models, inferences and the token secret, in SQLite."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS models (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    partner_model_id TEXT NOT NULL UNIQUE,
    json TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS inferences (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    model_id TEXT NOT NULL,
    partner_inference_id TEXT NOT NULL,
    received_at REAL NOT NULL,
    json TEXT NOT NULL,
    ground_truth TEXT,
    search TEXT NOT NULL,
    UNIQUE (model_id, partner_inference_id)
);
CREATE INDEX IF NOT EXISTS inferences_by_model ON inferences (model_id, seq);
"""
_COLUMNS: Final = "seq, model_id, received_at, json, ground_truth"


class ModelExistsError(ValueError):
    """A model with this id or this partner_model_id is registered already."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored inference.

    Attributes:
        seq: Its place in the order of arrival, over all models.
        model_id: The model that it was sent to.
        received_at: Seconds since the epoch.
        row: The row as received, with ground truth merged in that came later.
    """

    seq: int
    model_id: str
    received_at: float
    row: dict[str, Any]


class Store:
    """What the sandbox remembers. Every method may be called from any thread.

    Args:
        path: The database's file, made when missing; None keeps everything in memory, for the
            life of this object.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._close_later: weakref.finalize[[], Store] | None = None

    def close(self) -> None:
        """Close the file, which the next use opens again. What is in memory stays."""
        with self._lock:
            if self._path is not None and self._close_later is not None:
                self._close_later()
                self._connection = None

    def secret(self) -> bytes:
        """The secret that signs tokens; made on first use and kept."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO meta VALUES ('secret', ?) ON CONFLICT DO NOTHING",
                (secrets.token_bytes(32),),
            )
            found = db.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()
        return bytes(found[0])

    def add_model(self, model: dict[str, Any]) -> None:
        """Register a model that has its `id` and its `partner_model_id`.

        Raises:
            ModelExistsError: one of the two ids is taken.
        """
        with self._transaction() as db:
            added = db.execute(
                "INSERT INTO models (id, partner_model_id, json) VALUES (?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (model["id"], model["partner_model_id"], json.dumps(model)),
            )
        if added.rowcount == 0:
            raise ModelExistsError(
                f"a model with id {model['id']!r} or partner_model_id "
                f"{model['partner_model_id']!r} exists already"
            )

    def model(self, model_id: str, *, by_partner_id: bool = False) -> dict[str, Any] | None:
        """A model's JSON, found by its id or by its partner_model_id; None when unknown."""
        column = "partner_model_id" if by_partner_id else "id"
        with self._transaction() as db:
            found = db.execute(
                f"SELECT json FROM models WHERE {column} = ?",  # noqa: S608  # one of two names
                (model_id,),
            ).fetchone()
        return None if found is None else json.loads(found[0])

    def models(self) -> list[dict[str, Any]]:
        """All models' JSON, oldest first."""
        with self._transaction() as db:
            found = db.execute("SELECT json FROM models ORDER BY seq").fetchall()
        return [json.loads(text) for (text,) in found]

    def add_inferences(
        self, model_id: str, rows: Sequence[tuple[str, dict[str, Any], str]]
    ) -> list[bool]:
        """Store rows, all or none of them; the first row with an id stays.

        Args:
            model_id: The model that they were sent to.
            rows: For each its partner_inference_id, itself, and the text to find it by.

        Returns:
            For each row whether it is new; False says that its id was known.
        """
        now = time.time()
        with self._transaction() as db:
            return [
                db.execute(
                    "INSERT INTO inferences"
                    " (model_id, partner_inference_id, received_at, json, search)"
                    " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (model_id, inference_id, now, json.dumps(row), _searchable(text)),
                ).rowcount
                == 1
                for inference_id, row, text in rows
            ]

    def add_ground_truth(
        self, model_id: str, rows: Sequence[tuple[str, dict[str, Any]]]
    ) -> list[bool]:
        """Store ground truth, all or none of it; later ground truth replaces earlier.

        Args:
            model_id: The model that it was sent to.
            rows: For each its partner_inference_id and the row of the PATCH.

        Returns:
            For each row whether the inference is known; where it is not, nothing was stored.
        """
        with self._transaction() as db:
            return [
                db.execute(
                    "UPDATE inferences SET ground_truth = ?"
                    " WHERE model_id = ? AND partner_inference_id = ?",
                    (json.dumps(row), model_id, inference_id),
                ).rowcount
                == 1
                for inference_id, row in rows
            ]

    def inference(self, model_id: str, inference_id: str) -> Stored | None:
        """One inference by the ids the client knows; None when unknown."""
        return self._one("model_id = ? AND partner_inference_id = ?", model_id, inference_id)

    def inference_at(self, seq: int) -> Stored | None:
        """One inference by its place in the order of arrival; None when unknown."""
        return self._one("seq = ?", seq)

    def inferences(self) -> list[Stored]:
        """All inferences of all models, oldest first."""
        return self._select("SELECT {} FROM inferences ORDER BY seq")

    def page(
        self, *, model_id: str | None, search: str, before: int | None, limit: int
    ) -> list[Stored]:
        """Inferences newest first.

        Args:
            model_id: Of this model only; None takes all.
            search: Text that the id, the input or the output holds, in any case; empty takes all.
            before: Only what arrived before this place; None begins with the newest.
            limit: How many at most.
        """
        # A parameter that occurs twice must be a named one (Python 3.14).
        return self._select(
            "SELECT {} FROM inferences WHERE (:model IS NULL OR model_id = :model)"
            " AND (:before IS NULL OR seq < :before) AND (:text = '' OR instr(search, :text))"
            " ORDER BY seq DESC LIMIT :limit",
            {"model": model_id, "before": before, "text": _searchable(search), "limit": limit},
        )

    def counts(self) -> dict[str, int]:
        """How many inferences each model has; models without any are absent."""
        with self._transaction() as db:
            return dict(
                db.execute("SELECT model_id, count(*) FROM inferences GROUP BY model_id").fetchall()
            )

    def _one(self, where: str, *values: object) -> Stored | None:
        found = self._select(f"SELECT {{}} FROM inferences WHERE {where}", values)  # noqa: S608  # ours
        return found[0] if found else None

    def _select(
        self, statement: str, values: Sequence[object] | Mapping[str, object] = ()
    ) -> list[Stored]:
        with self._transaction() as db:
            found = db.execute(statement.format(_COLUMNS), values).fetchall()
        return [
            Stored(seq, model_id, received_at, json.loads(row) | json.loads(ground_truth or "{}"))
            for seq, model_id, received_at, row, ground_truth in found
        ]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._connection or self._open()
            with connection:
                yield connection

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path or ":memory:", check_same_thread=False)
        # A connection that nobody closes is a ResourceWarning when it is collected (Python 3.13).
        self._close_later = weakref.finalize(self, connection.close)
        self._connection = connection
        if self._path is not None:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_SCHEMA)
        return connection


def _searchable(text: str) -> str:
    # SQLite takes neither lone surrogates nor, in instr(), anything behind a NUL.
    return text.casefold().encode(errors="replace").decode().replace("\0", " ")
