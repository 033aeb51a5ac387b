"""The models' schemas in a spool's files: a `SchemaCache`."""

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from arthur_relay.buffers.schema_cache import seal, unseal
from arthur_relay.buffers.spool.segments import Segments
from arthur_relay.buffers.spool.storage import Storage
from arthur_relay.system.sqlite_pages import DamagedFileError


@dataclass(frozen=True, slots=True)
class SpoolSchemas:
    """Reads all files and writes to our own. See `SchemaCache` for each method.

    Args:
        segments: The files; the first one is our own.
        storage: Rebuilds a file in which a text is damaged.
    """

    segments: Segments
    storage: Storage

    def texts(self) -> Mapping[str, str]:
        """Return the texts, by model, including those of a file that was just rebuilt."""
        found = self._read()
        return self._read() if self.storage.rebuild_damaged() else found

    def keep(self, model_id: str, text: str) -> None:
        """Keep a model's text in our own file."""
        with suppress(sqlite3.Error):  # the destination is asked again
            self.segments[0].file.remember(model_id, seal(text))

    def forget(self, model_id: str) -> None:
        """Forget a model in all files."""
        for segment in self.segments:
            with suppress(sqlite3.Error):
                segment.file.forget(model_id)

    def _read(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for segment in self.segments:
            with suppress(sqlite3.Error):  # the file notes its own damage
                for model_id, sealed in segment.file.models().items():
                    text = unseal(model_id, sealed)
                    if text is None:
                        segment.file.damage = DamagedFileError("a model is not as it was written")
                    else:
                        found[model_id] = text
        return found
