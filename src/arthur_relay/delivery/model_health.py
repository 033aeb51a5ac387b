"""Whom a request's failure is blamed on: Arthur as a whole, a model, or the rows in it. Pure.

A failure (a 5xx, a time-out, a cut connection) says nothing of its cause. What else was answered
meanwhile does: where other models passed it is this model, where the same model passed it is these
rows. So one bad row, or one bad model, can't make the relay believe that Arthur is away, however
many of them there are.
"""

from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from arthur_relay.delivery.circuit_breaker import Breaker, BreakerState
from arthur_relay.delivery.in_flight import DeliveryState, Evidence, Lane

MODELS_KEPT = 1000
"""Models of which it is known when they last passed, at most."""

TROUBLED_KEPT = 200
"""Models that fail and have a breaker of their own, at most; the rest shares one."""

CROWD_KEPT = 100_000
"""Models that share one, at most: 100 bytes each, beside what the buffer has of their rows."""

CROWD_SHARE = 20
CROWD_PROBES = 4
MOST_CROWD_PROBES = 100
"""How many of the crowd are asked about at the same time: a twentieth, so many at least and most"""

FAULT_OF_ROWS = 500
SURE_AFTER = {FAULT_OF_ROWS: 1}
SURE_AFTER_OTHERS = 2
"""Failures of a batch, by status, while its model passes, before it is divided. A 500 is about what
was sent; with all else Arthur may just have too much to do, and more requests would not help it."""

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
    """Whose failure it is."""

    ARTHUR = "Arthur"
    MODEL = "model"
    ROWS = "rows"


@dataclass(slots=True)
class _Trouble:
    """A model that fails: its breaker, and what failed last."""

    breaker: Breaker
    evidence: Evidence | None = None
    probes: int = 0


class Throttling:
    """What Arthur asked of single models with 429 and `Retry-After`. Loop's thread only."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._last = 0.0

    def ask(self, model_id: str, until: float) -> bool:
        """Let nothing of a model set off before a time. Returns whether that is news of it."""
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
        """Return when the first of them has waited for long enough, or None when none waits."""
        if now >= self._last:  # nearly always
            return None
        return min((until for until in self._until.values() if until > now), default=None)

    def passed(self, model_id: str) -> None:
        """Note that Arthur takes rows of a model."""
        self._until.pop(model_id, None)
        if not self._until:
            self._last = 0.0


class ModelHealth:
    """Remembers what passes, and the models that do not. Loop's thread only.

    A model that fails `breaker_failures` times in a row while others pass is held: its rows wait,
    and some of them are sent now and then. Few models are held with a breaker of their own. Those
    beyond are the crowd, of which some are asked about in turn; where one passes, the next ones
    are at once.

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
        """Say whose failure the last one of a delivery is.

        Args:
            delivery: Its `seen` says since when others may have passed.
            is_down: Whether Arthur as a whole is known to be away.
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
        """Say whether the rows of a model have to wait."""
        return model_id in self.held or model_id in self.crowd

    @property
    def count(self) -> int:
        """How many models are held. Any thread may read it."""
        return len(self.held) + len(self.crowd)

    def is_healthy(self, model_id: str) -> bool:
        """Say whether a model has passed, and not failed since."""
        return model_id in self._passed_at and self.is_clear(model_id)

    def _may_be_rows(self, delivery: DeliveryState) -> bool:
        """Say whether rows of a model have passed, and not too many failed since.

        One row that fails again and again tells nothing, however many such rows there are.
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
        """Note how many requests of a model failed before the one that has passed now."""
        usual = self._usual_faults.pop(model_id, 0.0)
        usual += _WEIGHT * (faults - usual)
        if usual > _WEIGHT / 2:  # nearly no model has any
            self._usual_faults[model_id] = usual

    def has_passed(self, model_id: str) -> bool:
        """Say whether anything of a model has passed, as far as is remembered."""
        return model_id in self._passed_at

    def passes_beside(self, delivery: DeliveryState) -> bool:
        """Say whether others of its model have passed since a delivery first set off."""
        return self._passed_at.get(delivery.model_id, 0) > delivery.seen

    @staticmethod
    def may_divide(delivery: DeliveryState) -> bool:
        """Say whether a batch of bad rows has failed often enough to be divided."""
        return delivery.failures >= SURE_AFTER.get(delivery.status or 0, SURE_AFTER_OTHERS)

    def passed(self, model_id: str) -> bool:
        """Note that a request was answered. Returns whether the model was held; it is no more."""
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
        """Note that a delivery failed, which may be for its model.

        One row that fails again and again tells nothing of the others, so it is counted once.

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
        """Say whether a model has not failed since it last passed."""
        return model_id not in self._troubled and model_id not in self.crowd

    def due(self, now: float, probed: AbstractSet[str], *, is_down: bool) -> list[str]:
        """Return the held models that may be asked about now, those first that waited longest.

        Args:
            now: The time.
            probed: Those that are being asked about.
            is_down: Whether Arthur as a whole is away: then one of them is enough.
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
        """Return for how many seconds none of them may be asked about; `inf` when not known.

        Args:
            now: The time.
            probed: Those that are being asked about.
            is_down: Whether Arthur as a whole is away: then their own breakers do not matter.
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
        """Note that a held model is being asked about."""
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
        """Say whether the next probe of a held model is a batch, and not one row."""
        return model_id in self._troubled and self._troubled[model_id].probes % 2 == 1

    def put_off(self, model_id: str, until: float) -> None:
        """Ask about a held model later: all that is left of it is on its way."""
        if model_id in self.crowd:
            self._to_the_end(model_id)
            self._crowd_breaker.hold(until)
        else:
            self.held[model_id].hold(until)

    def end_probe(self, model_id: str, now: float) -> None:
        """Note that a probe is over, whether or not it could tell anything."""
        if model_id in self.crowd:
            self._crowd_breaker.abandoned(now)
        elif (breaker := self.held.get(model_id)) is not None:
            breaker.abandoned(now)

    def forget(self, model_id: str) -> None:
        """Hold a model no longer: nothing of it is left."""
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
        """Forget that probes are on their way."""
        for breaker in self.held.values():
            breaker.abandoned(0.0)
        self._crowd_breaker.abandoned(0.0)


@dataclass(slots=True, frozen=True)
class Unproven(Collection[str]):
    """All models that are not known to be healthy, as a collection that can only be asked."""

    model_health: ModelHealth

    def __contains__(self, model_id: object) -> bool:
        """Return whether a model is not known to be healthy."""
        return not (isinstance(model_id, str) and self.model_health.is_healthy(model_id))

    def __iter__(self) -> Iterator[str]:
        """Yield nothing: nobody knows them all."""
        return iter(())

    def __len__(self) -> int:
        """Return 1, as there may be any number."""
        return 1
