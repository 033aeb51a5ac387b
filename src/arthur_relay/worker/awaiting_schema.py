"""Captures that can't be encoded yet, because their model's schema is not known."""

from collections import deque
from sys import getsizeof

from arthur_relay.inference import Encodable

MODEL_BYTES = 1200
"""The bytes that a model costs beside its captures and its id, here and in the schema registry;
measured with tracemalloc."""


class AwaitingSchema:
    """Waiting captures by model, oldest first, each with the epoch it was taken in.

    Only the worker's thread uses it. `rows` is the number of rows that the captures will make,
    `size` their bytes and those of the models: inferences may name any number of models.
    """

    def __init__(self) -> None:
        self._by_model: dict[str, deque[tuple[Encodable, int]]] = {}
        self.rows = 0
        self.size = 0

    def put(self, capture: Encodable, epoch: int) -> None:
        """Hold a capture."""
        waiting = self._by_model.get(capture.model_id)
        if waiting is None:
            waiting = self._by_model[capture.model_id] = deque()
            self.size += _model_size(capture.model_id)
        waiting.append((capture, epoch))
        self.rows += capture.rows
        self.size += capture.size

    def cost(self, capture: Encodable) -> int:
        """Return the bytes that a capture would take here."""
        model_id = capture.model_id
        return capture.size + (0 if model_id in self._by_model else _model_size(model_id))

    def holds(self, model_id: str) -> bool:
        """Return whether anything waits for the model."""
        return model_id in self._by_model

    def take(self, model_id: str, limit: int) -> list[tuple[Encodable, int]]:
        """Return up to `limit` of the oldest captures of a model, with their epochs."""
        waiting = self._by_model.get(model_id)
        if waiting is None:
            return []
        taken = [waiting.popleft() for _ in range(min(limit, len(waiting)))]
        for capture, _ in taken:
            self.rows -= capture.rows
            self.size -= capture.size
        if not waiting:
            del self._by_model[model_id]
            self.size -= _model_size(model_id)
        return taken

    def models(self) -> list[str]:
        """Return the models that captures wait for."""
        return list(self._by_model)

    def evict(self) -> tuple[Encodable, int] | None:
        """Forget the oldest capture of the model that was waited for first, and return it."""
        for model_id in self._by_model:
            return self.take(model_id, 1)[0]
        return None


def _model_size(model_id: str) -> int:
    return MODEL_BYTES + getsizeof(model_id)
