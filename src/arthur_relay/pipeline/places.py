"""The places that requests take: few for what fails, and those of what hangs for others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from arthur_relay.pipeline.delivery import Delivery, Lane
from arthur_relay.settings import MOST_HANGING

MOST_APART_HANGING = MOST_HANGING // 4
"""Of what goes apart, so many requests that hang take no place, at most; the rest keeps theirs."""

MOST_ORDINARY_HANGING = MOST_HANGING - MOST_APART_HANGING
MOST_UNPROVEN_HANGING = MOST_ORDINARY_HANGING * 5 // 6
"""The same of all others, and among them of models that are not known to go well."""


class Places:
    """Hands out places to requests. Belongs to the worker's loop.

    What goes apart has half of the places at most. While requests hang, one place is for models
    that are known to go well, so that what hangs next can't take all of them.
    """

    def __init__(self) -> None:
        self._all = anyio.CapacityLimiter(1)
        self._apart = anyio.CapacityLimiter(1)
        self._unproven = anyio.CapacityLimiter(1)
        self._taken: dict[Delivery, list[anyio.CapacityLimiter]] = {}
        self._hanging: dict[Delivery, None] = {}
        self._apart_hanging: dict[Delivery, None] = {}

    def set_count(self, count: int) -> None:
        """Set how many there are, 1 or more."""
        hangs = bool(self._hanging or self._apart_hanging)
        self._all.total_tokens = max(2, count) if hangs else count
        self._apart.total_tokens = max(1, count // 2)
        self._unproven.total_tokens = max(1, count - 1) if hangs else count

    @property
    def for_unproven(self) -> int:
        """How many places may be taken of models that are not known to go well."""
        return int(self._unproven.total_tokens)

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
            self._apart_hanging.pop(delivery, None)
            del self._taken[delivery]

    def hang(self, delivery: Delivery) -> bool:
        """Free the place of a request that hangs. Returns whether it was, and not before."""
        taken = self._taken.get(delivery)
        if not taken:
            return False
        if self._apart in taken:
            hanging, most = self._apart_hanging, MOST_APART_HANGING
        else:
            is_unproven = self._unproven in taken
            hanging, most = self._hanging, MOST_UNPROVEN_HANGING if is_unproven else MOST_ORDINARY_HANGING
        if len(hanging) >= most:
            return False
        hanging[delivery] = None
        self._free(delivery, taken)
        return True

    def _limiters_of(self, delivery: Delivery) -> list[anyio.CapacityLimiter]:
        if delivery.lane is not Lane.ORDINARY:
            return [self._apart, self._all]
        return [self._unproven, self._all] if delivery.is_unproven else [self._all]

    @staticmethod
    def _free(delivery: Delivery, taken: list[anyio.CapacityLimiter]) -> None:
        while taken:
            taken.pop().release_on_behalf_of(delivery)
