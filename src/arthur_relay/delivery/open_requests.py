"""Requests that are not answered yet, and those of them that hang: for longer than usual.

If Arthur never answers for a model, each of its requests lasts for the whole time limit. So a
request that hangs gives up its slot long before that, and its model waits until it has ended.
"""

from arthur_relay.delivery.in_flight import DeliveryState

LEAST_SECONDS = 2.0
"""A request does not count as hanging before this time."""

USUAL_TIMES = 4.0
"""It hangs after this many times the usual duration of a request."""

SMOOTHING = 0.1
"""Weight of the newest answer in the usual duration."""


class OpenRequests:
    """The requests that were sent and not answered. Pure; loop's thread only.

    Attributes:
        waiting: Those that do not hang, oldest first, and when they were sent.
        hanging: Those that do.
        stalled: Models of which nothing has passed since a request that hangs was sent, and how
            many such requests each has.
    """

    def __init__(self) -> None:
        self.waiting: dict[DeliveryState, float] = {}
        self.hanging: dict[DeliveryState, None] = {}
        self.stalled: dict[str, int] = {}
        self._passed_since: set[DeliveryState] = set()
        self._usual = 0.0

    def __contains__(self, delivery: object) -> bool:
        """Return whether a delivery has a request that is not answered."""
        return delivery in self.waiting or delivery in self.hanging

    def clear(self) -> None:
        """Forget all: their tasks are gone."""
        self.waiting.clear()
        self.hanging.clear()
        self.stalled.clear()
        self._passed_since.clear()

    def begin(self, delivery: DeliveryState, now: float) -> None:
        """Record that a request is sent."""
        self.waiting[delivery] = now

    def end(self, delivery: DeliveryState) -> None:
        """Record that a request was answered or cancelled."""
        self.waiting.pop(delivery, None)
        self._passed_since.discard(delivery)
        if delivery not in self.hanging:
            return
        del self.hanging[delivery]
        left = self.stalled.pop(delivery.model_id, 0) - 1
        if left > 0:
            self.stalled[delivery.model_id] = left

    def answered(self, seconds: float) -> None:
        """Record how long an answer took."""
        self._usual += SMOOTHING * (seconds - self._usual) if self._usual else seconds

    def passed(self, model_id: str) -> None:
        """Record that rows of a model passed: a request of it that hangs does so for its rows."""
        self.stalled.pop(model_id, None)
        for delivery in self.waiting:
            if delivery.model_id == model_id:
                self._passed_since.add(delivery)

    @property
    def _limit(self) -> float:
        return max(LEAST_SECONDS, USUAL_TIMES * self._usual)

    def look(self, now: float) -> list[DeliveryState]:
        """Return the requests that hang from now on."""
        found = []
        for delivery, since in self.waiting.items():
            if now < since + self._limit:
                break
            found.append(delivery)
        for delivery in found:
            del self.waiting[delivery]
            self.hanging[delivery] = None
            if delivery not in self._passed_since:
                self.stalled[delivery.model_id] = self.stalled.get(delivery.model_id, 0) + 1
        return found

    def next_look(self) -> float | None:
        """Return when the next one will hang, or None."""
        since = next(iter(self.waiting.values()), None)
        return None if since is None else since + self._limit

    def models(self) -> set[str]:
        """Return the models of all unanswered requests."""
        return {each.model_id for each in (*self.waiting, *self.hanging)}
