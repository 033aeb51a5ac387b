"""Request slots: few for rows that failed; a request that hangs gives up its slot."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from arthur_relay.delivery.in_flight import DeliveryState, Lane
from arthur_relay.settings import MOST_HANGING

MOST_UNPROVEN_HANGING = MOST_HANGING * 5 // 8
"""Hanging requests without a slot, at most, of models that are not known to be healthy."""

MOST_ISOLATED_HANGING = MOST_HANGING // 4
"""The same for the isolated lane."""

MOST_ORDINARY_HANGING = MOST_HANGING - MOST_ISOLATED_HANGING
"""The same for the ordinary lane."""


class RequestSlots:
    """Hands out slots to requests. Belongs to the worker's loop.

    The isolated lane has at most half of the slots, or all but one while the ordinary lane is
    empty. A single row that failed comes after those that did not. While requests hang, one slot is
    kept for healthy models, so that the next requests that hang can't take all slots.
    """

    def __init__(self) -> None:
        self._all = anyio.CapacityLimiter(1)
        self._isolated = anyio.CapacityLimiter(1)
        self._unproven = anyio.CapacityLimiter(1)
        self._taken: dict[DeliveryState, list[anyio.CapacityLimiter]] = {}
        self._hanging: dict[DeliveryState, None] = {}
        self._lane_of: dict[DeliveryState, anyio.CapacityLimiter] = {}
        self._bad_rows = anyio.CapacityLimiter(1)
        lanes = self._all, self._isolated, self._bad_rows, self._unproven
        self._without_slot = dict.fromkeys(lanes, 0)

    def set_count(self, count: int, *, is_shared: bool, some_go_well: bool) -> None:
        """Set the number of slots.

        Args:
            count: 1 or more.
            is_shared: Whether the ordinary lane has any delivery.
            some_go_well: Whether any model is known to be healthy.
        """
        hangs = bool(self._hanging) and some_go_well
        self._all.total_tokens = max(2, count) if hangs else count
        self._isolated.total_tokens = max(1, count // 2 if is_shared else count - 1)
        self._bad_rows.total_tokens = max(1, count // 4)
        self._unproven.total_tokens = max(1, count - 1) if hangs else count

    @property
    def for_unproven(self) -> int:
        """How many slots models may take now that are not known to be healthy."""
        kept = sum(self._unproven in self._taken[each] for each in self._hanging)
        return int(self._unproven.total_tokens) - kept

    @asynccontextmanager
    async def take(self, delivery: DeliveryState) -> AsyncIterator[None]:
        """Hold a slot; waits until there is one."""
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
                self._without_slot[self._lane_of.pop(delivery)] -= 1
            del self._taken[delivery]

    def hang(self, delivery: DeliveryState) -> bool:
        """Free the slot of a request that hangs, and its share of the lane while few hang there.

        Returns:
            Whether it held a slot and does not any more.
        """
        taken = self._taken.get(delivery)
        if not taken:
            return False
        lane, had_slot = taken[0], self._all in taken
        self._free(delivery, taken, but=1)
        self._hanging[delivery] = None
        if self._may_free_lane(lane):
            self._without_slot[lane] += 1
            self._lane_of[delivery] = lane
            self._free(delivery, taken)
        return had_slot and self._all not in taken

    def _may_free_lane(self, lane: anyio.CapacityLimiter) -> bool:
        hanging = self._without_slot
        if lane in (self._isolated, self._bad_rows):
            return hanging[self._isolated] + hanging[self._bad_rows] < MOST_ISOLATED_HANGING
        is_free = hanging[self._all] + hanging[self._unproven] < MOST_ORDINARY_HANGING
        return is_free and (lane is self._all or hanging[lane] < MOST_UNPROVEN_HANGING)

    def _limiters_of(self, delivery: DeliveryState) -> list[anyio.CapacityLimiter]:
        if delivery.lane is not Lane.ORDINARY:
            limiters = [self._isolated, self._unproven, self._all]
            return [self._bad_rows, *limiters] if delivery.is_bad_row else limiters
        return [self._unproven, self._all] if delivery.is_unproven else [self._all]

    @staticmethod
    def _free(delivery: DeliveryState, taken: list[anyio.CapacityLimiter], but: int = 0) -> None:
        while len(taken) > but:
            taken.pop().release_on_behalf_of(delivery)
