"""The places that requests take: few for what fails, and those of what hangs for others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from arthur_relay.delivery.in_flight import Delivery, Lane
from arthur_relay.settings import MOST_HANGING

MOST_UNPROVEN_HANGING = MOST_HANGING * 5 // 8
"""Of models that are not known to go well, so many requests that hang take no place, at most."""

MOST_APART_HANGING = MOST_HANGING // 4
"""The same of what goes apart."""

MOST_ORDINARY_HANGING = MOST_HANGING - MOST_APART_HANGING
"""The same of all that does not."""


class RequestSlots:
    """Hands out places to requests. Belongs to the worker's loop.

    What goes apart has half of the places at most, or all but one while there is nothing else; a
    row that failed alone comes after those that did not. While requests hang, one place is for
    models that are known to go well, so that what hangs next can't take all of them.
    """

    def __init__(self) -> None:
        self._all = anyio.CapacityLimiter(1)
        self._apart = anyio.CapacityLimiter(1)
        self._unproven = anyio.CapacityLimiter(1)
        self._taken: dict[Delivery, list[anyio.CapacityLimiter]] = {}
        self._hanging: dict[Delivery, None] = {}
        self._lane_of: dict[Delivery, anyio.CapacityLimiter] = {}
        self._again = anyio.CapacityLimiter(1)
        self._away = dict.fromkeys((self._all, self._apart, self._again, self._unproven), 0)

    def set_count(self, count: int, *, is_shared: bool, some_go_well: bool) -> None:
        """Set how many there are.

        Args:
            count: 1 or more.
            is_shared: Whether there are others beside what goes apart.
            some_go_well: Whether any model is known to go well.
        """
        hangs = bool(self._hanging) and some_go_well
        self._all.total_tokens = max(2, count) if hangs else count
        self._apart.total_tokens = max(1, count // 2 if is_shared else count - 1)
        self._again.total_tokens = max(1, count // 4)
        self._unproven.total_tokens = max(1, count - 1) if hangs else count

    @property
    def for_unproven(self) -> int:
        """How many may be taken now of models that are not known to go well."""
        kept = sum(self._unproven in self._taken[each] for each in self._hanging)
        return int(self._unproven.total_tokens) - kept

    @asynccontextmanager
    async def take(self, delivery: Delivery) -> AsyncIterator[None]:
        """Wait for a place, and free it in the end."""
        taken = self._taken[delivery] = []
        try:
            for limiter in self._limiters_of(delivery):
                await limiter.acquire_on_behalf_of(delivery)
                taken.append(limiter)
            yield
        finally:
            self._free(delivery, taken)
            self._hanging.pop(delivery, None)
            if delivery in self._lane_of:
                self._away[self._lane_of.pop(delivery)] -= 1
            del self._taken[delivery]

    def hang(self, delivery: Delivery) -> bool:
        """Free the place of a request that hangs; also among its like while those are few.

        Returns:
            Whether it has no place from now on.
        """
        taken = self._taken.get(delivery)
        if not taken:
            return False
        lane, had_place = taken[0], self._all in taken
        self._free(delivery, taken, but=1)
        self._hanging[delivery] = None
        if self._may_go(lane):
            self._away[lane] += 1
            self._lane_of[delivery] = lane
            self._free(delivery, taken)
        return had_place and self._all not in taken

    def _may_go(self, lane: anyio.CapacityLimiter) -> bool:
        away = self._away
        if lane in (self._apart, self._again):
            return away[self._apart] + away[self._again] < MOST_APART_HANGING
        is_free = away[self._all] + away[self._unproven] < MOST_ORDINARY_HANGING
        return is_free and (lane is self._all or away[lane] < MOST_UNPROVEN_HANGING)

    def _limiters_of(self, delivery: Delivery) -> list[anyio.CapacityLimiter]:
        if delivery.lane is not Lane.ORDINARY:
            limiters = [self._apart, self._unproven, self._all]
            return [self._again, *limiters] if delivery.is_bad_row else limiters
        return [self._unproven, self._all] if delivery.is_unproven else [self._all]

    @staticmethod
    def _free(delivery: Delivery, taken: list[anyio.CapacityLimiter], but: int = 0) -> None:
        while len(taken) > but:
            taken.pop().release_on_behalf_of(delivery)
