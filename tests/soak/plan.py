"""What a soak will do, drawn from its seed: which faults, for how long, and when it kills; pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Final, NamedTuple

from tests.soak.faults import Kind

CALM_PART: Final = 0.15
"""Of the whole time: how long nothing goes wrong at the beginning, and again at the end."""

LONG_SECONDS: Final = 60.0
"""What is shorter is a short form: each kind of fault comes once, and none outlives a time-out."""

ROUNDS: Final = 3
"""How often each kind of fault comes in a longer one, about."""

KILLS_PART: Final = 0.8
"""Of the storm: after it nothing is killed, so that the last process sees faults as well."""

LONG_OUTAGE_PART: Final = 0.15
"""Of the storm: how long the port is shut at a stretch, once."""


class Event(NamedTuple):
    """A fault that comes and goes.

    Attributes:
        kind: What goes wrong.
        seconds: For how long, and until one request at least has met it.
        pause_seconds: How long all is well afterwards.
    """

    kind: Kind
    seconds: float
    pause_seconds: float


class Plan:
    """What a soak of some length does.

    Args:
        seconds: How long it captures.
        seed: Of all that is drawn.
    """

    def __init__(self, seconds: float, seed: int) -> None:
        self.calm_seconds = seconds * CALM_PART
        self.storm_seconds = seconds - 2 * self.calm_seconds
        self.kills_seconds = self.storm_seconds * KILLS_PART
        self._events = random.Random(f"{seed} events")
        self._kills = random.Random(f"{seed} kills")
        kinds = len(Kind) - 1
        left = self.storm_seconds * (1 - LONG_OUTAGE_PART)
        self._turn_seconds = left / (kinds * (ROUNDS if seconds >= LONG_SECONDS else 1))
        self._life_seconds = max(1.0, self.kills_seconds / 12)

    def rounds(self) -> Iterator[list[Event]]:
        """The faults: every kind in each round, in an order of its own; without an end."""
        kinds = [kind for kind in Kind if kind is not Kind.NONE]
        draw = self._events
        outage = Event(Kind.REFUSING, self.storm_seconds * LONG_OUTAGE_PART, 0.0)
        for number in count():
            round_of = [
                Event(
                    kind,
                    self._turn_seconds * draw.uniform(0.4, 0.9),
                    self._turn_seconds * draw.uniform(0.1, 0.4),
                )
                for kind in kinds
            ]
            if number == 0:
                round_of.append(outage)
            draw.shuffle(round_of)
            yield round_of

    def life_seconds(self) -> float:
        """How long the next process lives, from its first capture on."""
        return self._life_seconds * self._kills.uniform(0.2, 1.8)

    def restart_seconds(self) -> float:
        """How long nobody captures after a kill."""
        return self._kills.choice([0.0, 0.0, self._kills.uniform(0.0, 1.0)])
