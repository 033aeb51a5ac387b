"""Captures that can't be encoded yet because Arthur has not told their model's schema."""

from collections import deque

from arthur_relay.inference import Encodable


class Staging:
    """Waiting captures by model, oldest first, with their number of rows and bytes.

    Only the worker's thread uses it. Each capture is kept with the epoch it was taken in.
    """

    def __init__(self) -> None:
        self._by_model: dict[str, deque[tuple[Encodable, int]]] = {}
        self.rows = 0
        self.size = 0

    def put(self, capture: Encodable, epoch: int) -> None:
        """Hold a capture."""
        self._by_model.setdefault(capture.model_id, deque()).append((capture, epoch))
        self.rows += capture.rows
        self.size += capture.size

    def holds(self, model_id: str) -> bool:
        """Return whether anything waits for the model."""
        return model_id in self._by_model

    def take(self, model_id: str, limit: int) -> list[tuple[Encodable, int]]:
        """Return the oldest captures of a model with their epochs, `limit` at most."""
        waiting = self._by_model.get(model_id)
        if not waiting:
            self._by_model.pop(model_id, None)
            return []
        taken = [waiting.popleft() for _ in range(min(limit, len(waiting)))]
        for capture, _ in taken:
            self.rows -= capture.rows
            self.size -= capture.size
        return taken

    def models(self) -> list[str]:
        """Return the models that something waits for."""
        return list(self._by_model)

    def evict(self) -> tuple[Encodable, int] | None:
        """Forget the oldest capture of the model that waits longest, and return it."""
        for model_id in list(self._by_model):
            for found in self.take(model_id, 1):
                return found
        return None
