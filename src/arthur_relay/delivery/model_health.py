"""What a failed request is blamed on: Arthur as a whole, a model, or its rows. Pure.

A failure (a 5xx, a time-out, a cut connection) does not show its cause. The answers to other
requests do: if other models passed meanwhile it is this model, if the same model passed it is these
rows. So bad rows or bad models, however many, can't make the relay believe that Arthur is down.
"""

from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from arthur_relay.delivery.circuit_breaker import Breaker, BreakerState
from arthur_relay.delivery.in_flight import DeliveryState, Evidence, Lane

MODELS_KEPT = 1000
"""The most models of which the last success is remembered."""

TROUBLED_KEPT = 200
"""The most failing models that have a breaker of their own; the others share one."""

CROWD_KEPT = 100_000
"""The most models that share one: 100 bytes each, besides their rows in the buffer."""

CROWD_SHARE = 20
CROWD_PROBES = 4
MOST_CROWD_PROBES = 100
"""How many models of the crowd are probed at once: a twentieth of them, from 4 to 100."""

FAULT_OF_ROWS = 500
SURE_AFTER = {FAULT_OF_ROWS: 1}
SURE_AFTER_OTHERS = 2
"""Failures of a batch, by status, while its model passes, before it is divided. A 500 is about the
rows; any other failure may mean that Arthur is overloaded, and more requests would not help."""

FAULTS_IN_A_ROW = 30
USUAL_FAULTS = 15
MOST_FAULTS = 300
"""With a 500, so many requests of a model that was healthy are taken for bad rows of it, before the
model is to blame, or Arthur: 30, and fifteen times as many as usually fail between two that pass,
up to the most. By chance alone that many follow each other once in three million times:
(1 - q) ** (15 / q) is about exp(-15), whatever share q of them passes. What is usual lags behind
the sizes of batches, which take their part of that."""

_WEIGHT = 0.1
"""Of the newest in what is usual."""


class Blame(Enum):
    """What a failure is blamed on."""

    ARTHUR = "Arthur"
    MODEL = "model"
    ROWS = "rows"


@dataclass(slots=True)
class _Trouble:
    """A model that fails: its breaker, and which rows failed last."""

    breaker: Breaker
    evidence: Evidence | None = None
    probes: int = 0


class Throttling:
    """Until when single models have to wait, after a 429 with `Retry-After`. Loop's thread only."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._last = 0.0

    def ask(self, model_id: str, until: float) -> bool:
        """Let a model wait until a time. Returns whether it did not have to wait before."""
        is_news = model_id not in self._until
        until = max(until, self._until.pop(model_id, until))
        while len(self._until) >= MODELS_KEPT:
            del self._until[next(iter(self._until))]
        self._until[model_id] = until
        self._last = max(self._last, until)
        return is_news

    def wait(self, model_id: str, now: float) -> float:
        """Return for how many seconds a model has to wait."""
        return 0.0 if now >= self._last else max(0.0, self._until.get(model_id, now) - now)

    def waiting(self, now: float) -> list[str]:
        """Return the models that have to wait."""
        if now >= self._last:  # nearly always
            return []
        return [model_id for model_id, until in self._until.items() if until > now]

    def next_end(self, now: float) -> float | None:
        """Return when the first model need not wait any more, or None when none waits."""
        if now >= self._last:  # nearly always
            return None
        return min((until for until in self._until.values() if until > now), default=None)

    def passed(self, model_id: str) -> None:
        """Record that Arthur took rows of a model."""
        self._until.pop(model_id, None)
        if not self._until:
            self._last = 0.0


class ModelHealth:
    """Remembers which models pass, and holds those that do not. Loop's thread only.

    A model that fails `breaker_failures` times in a row while others pass is held: its rows wait,
    and some of them are sent now and then as a probe. The first models that fail have a breaker of
    their own. The others are the crowd, of which some are probed in turn; when one of them passes,
    the next ones are probed at once.

    Args:
        breaker: Arthur's; each model that fails gets one like it.

    Attributes:
        passes: How many requests were answered.
        held: The models that are held with a breaker of their own, those first that were not
            probed for longest.
        crowd: The others that are held, in the same order.
        throttling: The models of which fewer requests were asked for.
    """

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._troubled: dict[str, _Trouble] = {}
        self._passed_at: dict[str, int] = {}
        self._failed_since: dict[str, int] = {}
        self._usual_faults: dict[str, float] = {}
        self.passes = 0
        self.held: dict[str, Breaker] = {}
        self.crowd: dict[str, None] = {}
        self._crowd_breaker = breaker.fresh()
        self._favours_crowd = False
        self.throttling = Throttling()

    def blame(self, delivery: DeliveryState, *, is_down: bool) -> Blame:
        """Return what the last failure of a delivery is blamed on.

        Args:
            delivery: Its `seen` says since when others may have passed.
            is_down: Whether Arthur as a whole is known to be down.
        """
        if is_down:
            return Blame.ARTHUR
        if self.is_held(delivery.model_id):
            return Blame.MODEL if self.passes else Blame.ARTHUR
        if delivery.status == FAULT_OF_ROWS and self._may_be_rows(delivery):
            return Blame.ROWS
        if self.passes_beside(delivery):
            is_sure = delivery.lane is Lane.ISOLATED or self.may_divide(delivery)
            return Blame.ROWS if is_sure else Blame.ARTHUR
        return Blame.MODEL if self.passes > delivery.seen else Blame.ARTHUR

    def is_held(self, model_id: str) -> bool:
        """Return whether a model is held."""
        return model_id in self.held or model_id in self.crowd

    @property
    def count(self) -> int:
        """How many models are held. Any thread may read it."""
        return len(self.held) + len(self.crowd)

    def is_healthy(self, model_id: str) -> bool:
        """Return whether a model has passed, and not failed since."""
        return model_id in self._passed_at and self.is_clear(model_id)

    def _may_be_rows(self, delivery: DeliveryState) -> bool:
        """Return whether rows of a model have passed, and not too many failed since.

        A single row that fails again does not count, however many such rows there are.
        """
        model_id = delivery.model_id
        if model_id not in self._passed_at:
            return False
        if delivery.is_bad_row and delivery.failures > 1:
            return True
        self._failed_since[model_id] = self._failed_since.get(model_id, 0) + 1
        most = FAULTS_IN_A_ROW + USUAL_FAULTS * self._usual_faults.get(model_id, 0.0)
        return self._failed_since[model_id] <= min(most, MOST_FAULTS)

    def _note_run(self, model_id: str, faults: int) -> None:
        """Record how many requests of a model failed before the one that has passed now."""
        usual = self._usual_faults.pop(model_id, 0.0)
        usual += _WEIGHT * (faults - usual)
        if usual > _WEIGHT / 2:  # nearly no model has any
            self._usual_faults[model_id] = usual

    def has_passed(self, model_id: str) -> bool:
        """Return whether any rows of a model have passed, as far as is remembered."""
        return model_id in self._passed_at

    def passes_beside(self, delivery: DeliveryState) -> bool:
        """Return whether others of its model have passed since a delivery was first sent."""
        return self._passed_at.get(delivery.model_id, 0) > delivery.seen

    @staticmethod
    def may_divide(delivery: DeliveryState) -> bool:
        """Return whether a batch with bad rows has failed often enough to be divided."""
        return delivery.failures >= SURE_AFTER.get(delivery.status or 0, SURE_AFTER_OTHERS)

    def passed(self, model_id: str) -> bool:
        """Record that rows of a model passed: it is held no longer. Returns whether it was."""
        self.passes += 1
        self._passed_at.pop(model_id, None)  # the newest come last
        self._note_run(model_id, self._failed_since.pop(model_id, 0))
        while len(self._passed_at) >= MODELS_KEPT:
            oldest = next(iter(self._passed_at))
            del self._passed_at[oldest]
            self._failed_since.pop(oldest, None)
            self._usual_faults.pop(oldest, None)
        self._passed_at[model_id] = self.passes
        self._troubled.pop(model_id, None)
        self.throttling.passed(model_id)
        if model_id in self.crowd:
            del self.crowd[model_id]
            self._crowd_breaker.succeeded()
            self._ask_crowd_at_once()
            return True
        return self.held.pop(model_id, None) is not None

    def failed(self, delivery: DeliveryState, now: float, *, at_once: bool) -> bool:
        """Record that a delivery failed, perhaps because of its model.

        A row that fails again and again says nothing about the others, so it counts once.

        Args:
            delivery: The delivery.
            now: The time.
            at_once: Whether one failure is enough.

        Returns:
            Whether the model is held from now on.
        """
        model_id = delivery.model_id
        if model_id in self.crowd:
            self._crowd_breaker.failed(now, at_once=True)
            return False
        trouble = self._troubled.get(model_id)
        if trouble is None:
            while len(self._troubled) >= TROUBLED_KEPT:
                self._let_join_crowd(next(iter(self._troubled)), now)
            trouble = self._troubled[model_id] = _Trouble(self._breaker.fresh())
        was_held = self.held.pop(model_id, None) is not None
        is_news = trouble.evidence != delivery.evidence
        trouble.evidence = delivery.evidence
        if at_once or was_held or is_news or delivery.row_count > 1:
            trouble.breaker.failed(now, at_once=at_once)
        if trouble.breaker.state is BreakerState.CLOSED:
            return False
        self.held[model_id] = trouble.breaker
        return not was_held

    def _let_join_crowd(self, model_id: str, now: float) -> None:
        """Forget a model's own breaker; if it is held, it still is."""
        is_held = model_id in self.held
        self.forget(model_id)
        if not is_held:
            return
        while len(self.crowd) >= CROWD_KEPT:
            self.forget(next(iter(self.crowd)))
        if not self.crowd:
            self._crowd_breaker.failed(now, at_once=True)
        self.crowd[model_id] = None

    def _ask_crowd_at_once(self) -> None:
        self._crowd_breaker.failed(0.0, at_once=True)
        self._crowd_breaker.probe_now(0.0)

    def is_clear(self, model_id: str) -> bool:
        """Return whether a model has not failed since it last passed."""
        return model_id not in self._troubled and model_id not in self.crowd

    def due(self, now: float, probed: AbstractSet[str], *, is_down: bool) -> list[str]:
        """Return the held models that may be probed now, those first that waited longest.

        Args:
            now: The time.
            probed: The models that are being probed.
            is_down: Whether Arthur as a whole is down: then one of them is enough.
        """
        others = (each for each in self.crowd if each not in probed)
        if is_down:
            crowd = [] if self._crowd_breaker.held(now) else list(islice(others, CROWD_PROBES))
            held = [
                model_id
                for model_id, breaker in self.held.items()
                if model_id not in probed and not breaker.held(now)
            ]
            return [*crowd, *held] if self._favours_crowd else [*held, *crowd]
        due = [
            model_id
            for model_id, breaker in self.held.items()
            if model_id not in probed and breaker.wait(now) <= 0
        ]
        if self.crowd and self._crowd_breaker.wait(now) <= 0:
            most = max(CROWD_PROBES, min(MOST_CROWD_PROBES, len(self.crowd) // CROWD_SHARE))
            due += islice(others, most)
        return [each for each in due if self.throttling.wait(each, now) <= 0]

    def next_due(self, now: float, probed: AbstractSet[str], *, is_down: bool) -> float:
        """Return for how many seconds no held model may be probed; `inf` when not known.

        Args:
            now: The time.
            probed: The models that are being probed.
            is_down: Whether Arthur as a whole is down: then their own breakers do not matter.
        """
        waits = [
            breaker.held(now)
            if is_down
            else max(breaker.wait(now), self.throttling.wait(model_id, now))
            for model_id, breaker in self.held.items()
            if model_id not in probed
        ]
        if len(self.crowd) > sum(model_id in self.crowd for model_id in probed):
            breaker = self._crowd_breaker
            waits.append(breaker.held(now) if is_down else breaker.wait(now))
        return min(waits, default=float("inf"))

    def begin_probe(self, model_id: str, now: float) -> None:
        """Record that a held model is being probed."""
        self._favours_crowd = model_id not in self.crowd
        if model_id in self.crowd:
            self._to_the_end(model_id)
            self._crowd_breaker.probe_now(now)
            self._crowd_breaker.admit(now)
            return
        breaker = self.held[model_id]
        breaker.probe_now(now)
        breaker.admit(now)
        self._troubled[model_id].probes += 1

    def is_batch_next(self, model_id: str) -> bool:
        """Return whether the next probe of a held model is a batch, and not one row."""
        return model_id in self._troubled and self._troubled[model_id].probes % 2 == 1

    def put_off(self, model_id: str, until: float) -> None:
        """Probe a held model later: all of its rows are in flight."""
        if model_id in self.crowd:
            self._to_the_end(model_id)
            self._crowd_breaker.hold(until)
        else:
            self.held[model_id].hold(until)

    def end_probe(self, model_id: str, now: float) -> None:
        """Record that a probe has ended, with or without an answer."""
        if model_id in self.crowd:
            self._crowd_breaker.abandoned(now)
        elif (breaker := self.held.get(model_id)) is not None:
            breaker.abandoned(now)

    def forget(self, model_id: str) -> None:
        """Hold a model no longer: it has no rows left."""
        self._troubled.pop(model_id, None)
        self.held.pop(model_id, None)
        self.crowd.pop(model_id, None)

    def _to_the_end(self, model_id: str) -> None:
        del self.crowd[model_id]
        self.crowd[model_id] = None

    def probe_all_now(self, now: float) -> None:
        """Make the next probe of each model due."""
        for breaker in self.held.values():
            breaker.probe_now(now)
        self._crowd_breaker.probe_now(now)

    def abandon_all(self) -> None:
        """Forget that models are being probed: the tasks are gone."""
        for breaker in self.held.values():
            breaker.abandoned(0.0)
        self._crowd_breaker.abandoned(0.0)


@dataclass(slots=True, frozen=True)
class Unproven(Collection[str]):
    """All models that are not known to be healthy, as a collection for membership tests only."""

    model_health: ModelHealth

    def __contains__(self, model_id: object) -> bool:
        """Return whether a model is not known to be healthy."""
        return not (isinstance(model_id, str) and self.model_health.is_healthy(model_id))

    def __iter__(self) -> Iterator[str]:
        """Yield nothing: they can't be listed."""
        return iter(())

    def __len__(self) -> int:
        """Return 1, so that the collection counts as not empty."""
        return 1
