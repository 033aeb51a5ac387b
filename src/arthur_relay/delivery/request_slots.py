"""Request slots: few for what fails; a request that hangs gives its slot to others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from arthur_relay.delivery.in_flight import DeliveryState, Lane
from arthur_relay.settings import MOST_HANGING

MOST_UNPROVEN_HANGING = MOST_HANGING * 5 // 8
"""Of models that are not known to be healthy, at most so many hanging requests hold no slot."""

MOST_ISOLATED_HANGING = MOST_HANGING // 4
"""The same of the isolated lane."""

MOST_ORDINARY_HANGING = MOST_HANGING - MOST_ISOLATED_HANGING
"""The same of the ordinary lane."""


class RequestSlots:
    """Hands out slots to requests. Belongs to the worker's loop.

    The isolated lane has half of the slots at most, or all but one while there is nothing else; a
    row that failed alone comes after those that did not. While requests hang, one slot is kept for
    models that are known to be healthy, so that the next hanging requests can't take them all.
    """

    def __init__(self) -> None:
        self._all = anyio.CapacityLimiter(1)
        self._isolated = anyio.CapacityLimiter(1)
        self._unproven = anyio.CapacityLimiter(1)
        self._taken: dict[DeliveryState, list[anyio.CapacityLimiter]] = {}
        self._hanging: dict[DeliveryState, None] = {}
        self._lane_of: dict[DeliveryState, anyio.CapacityLimiter] = {}
        self._again = anyio.CapacityLimiter(1)
        self._away = dict.fromkeys((self._all, self._isolated, self._again, self._unproven), 0)

    def set_count(self, count: int, *, is_shared: bool, some_go_well: bool) -> None:
        """Set how many there are.

        Args:
            count: 1 or more.
            is_shared: Whether there is anything in the ordinary lane.
            some_go_well: Whether any model is known to be healthy.
        """
        hangs = bool(self._hanging) and some_go_well
        self._all.total_tokens = max(2, count) if hangs else count
        self._isolated.total_tokens = max(1, count // 2 if is_shared else count - 1)
        self._again.total_tokens = max(1, count // 4)
        self._unproven.total_tokens = max(1, count - 1) if hangs else count

    @property
    def for_unproven(self) -> int:
        """How many slots may be taken now for models that are not known to be healthy."""
        kept = sum(self._unproven in self._taken[each] for each in self._hanging)
        return int(self._unproven.total_tokens) - kept

    @asynccontextmanager
    async def take(self, delivery: DeliveryState) -> AsyncIterator[None]:
        """Wait for a slot, and free it in the end."""
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

    def hang(self, delivery: DeliveryState) -> bool:
        """Free the slot of a request that hangs; also in its own lane, while few hang there.

        Returns:
            Whether it holds no slot from now on.
        """
        taken = self._taken.get(delivery)
        if not taken:
            return False
        lane, had_slot = taken[0], self._all in taken
        self._free(delivery, taken, but=1)
        self._hanging[delivery] = None
        if self._may_go(lane):
            self._away[lane] += 1
            self._lane_of[delivery] = lane
            self._free(delivery, taken)
        return had_slot and self._all not in taken

    def _may_go(self, lane: anyio.CapacityLimiter) -> bool:
        away = self._away
        if lane in (self._isolated, self._again):
            return away[self._isolated] + away[self._again] < MOST_ISOLATED_HANGING
        is_free = away[self._all] + away[self._unproven] < MOST_ORDINARY_HANGING
        return is_free and (lane is self._all or away[lane] < MOST_UNPROVEN_HANGING)

    def _limiters_of(self, delivery: DeliveryState) -> list[anyio.CapacityLimiter]:
        if delivery.lane is not Lane.ORDINARY:
            limiters = [self._isolated, self._unproven, self._all]
            return [self._again, *limiters] if delivery.is_bad_row else limiters
        return [self._unproven, self._all] if delivery.is_unproven else [self._all]

    @staticmethod
    def _free(delivery: DeliveryState, taken: list[anyio.CapacityLimiter], but: int = 0) -> None:
        while len(taken) > but:
            taken.pop().release_on_behalf_of(delivery)
