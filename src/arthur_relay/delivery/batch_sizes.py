"""How many rows of a model one request has, where many of them are bad.

Each bad row makes Arthur fail the whole request. Where one row in three is bad, no batch of the
usual size ever passes, and halving each batch down to its rows takes more requests than sending
the rows one by one. So batches of such a model shrink until they pass, and grow again
when they do: about half of them pass then, which is where a search takes the fewest requests.
"""

MODELS_KEPT = 1000
"""The most models that are remembered to need smaller batches."""


class BatchSizes:
    """The most rows of a request of each model. Pure.

    Args:
        usual: The most rows of a request of any model.
    """

    def __init__(self, usual: int) -> None:
        self._usual = usual
        self._most: dict[str, int] = {}

    def of(self, model_id: str) -> int:
        """Return how many rows of a model a request may have, 1 or more."""
        return self._most.get(model_id, self._usual)

    def failed(self, model_id: str, rows: int) -> None:
        """Record that a request with `rows` rows failed for one of them."""
        most = self._most.pop(model_id, self._usual)
        while len(self._most) >= MODELS_KEPT:
            del self._most[next(iter(self._most))]
        # A larger request was sent before the last cut, and says nothing about it.
        self._most[model_id] = max(1, rows // 2) if rows <= most else most

    def passed(self, model_id: str, rows: int) -> None:
        """Record that a request with `rows` rows passed."""
        most = self._most.get(model_id)
        if most is None or rows < most:
            return
        if 2 * rows < self._usual:
            self._most[model_id] = 2 * rows
        else:
            del self._most[model_id]
