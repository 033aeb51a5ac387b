"""Questions for models on behalf of others: one for all who want the same, and its answer kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.errors import (
    ConfigurationError,
    CredentialsError,
    ModelError,
    RelayError,
    UnreachableError,
)
from arthur_relay.testing import LLM_ATTRIBUTES
from arthur_relay.worker import model_inquiries
from arthur_relay.worker.model_inquiries import ModelInquiries
from tests.clock import Clock
from tests.worker.harness import virtual

if TYPE_CHECKING:
    from concurrent.futures import Future

    from arthur_relay.encoding.model import Schema

MODEL = ModelSchema("m", LLM_ATTRIBUTES).to_json()
NOT_TEXT = {"id": "m", "name": "a model of another kind"}


@dataclass
class Arthur:
    """Describes models, or raises; each answer takes a second."""

    answers: list[Any] = field(default_factory=list)
    asked: list[tuple[str, bool]] = field(default_factory=list)
    seconds: float = 1.0

    async def fetch_model(self, model_id: str, *, by_partner_id: bool = False) -> Any:
        self.asked.append((model_id, by_partner_id))
        await anyio.sleep(self.seconds)
        found = self.answers.pop(0) if self.answers else MODEL
        if isinstance(found, Exception):
            raise found
        return found

    def schema_of(self, document: dict[str, Any]) -> ModelSchema:
        return ModelSchema.from_json(document)


@dataclass
class Notes:
    """What the registry and an observer were told."""

    taken: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    ended: list[RelayError | None] = field(default_factory=list)

    def take(self, schema: Schema) -> None:
        self.taken.append(schema.model_id)

    def question_ended(self, failure: str) -> None:
        self.failures.append(failure)

    def on_inquiry(self, error: RelayError | None) -> None:
        self.ended.append(error)


def inquiries(*answers: Any, seconds: float = 1.0) -> tuple[ModelInquiries, Arthur, Notes, Clock]:
    arthur, notes, clock = Arthur(list(answers), seconds=seconds), Notes(), Clock()
    made = ModelInquiries(
        destination=arthur, models=notes, timeout_seconds=5.0, clock=clock, observers=[notes]
    )
    made.enter()
    return made, arthur, notes, clock


def ask(made: ModelInquiries, name: str = "m", *, by_partner_id: bool = False) -> Future[Any]:
    return made.ask(name, by_partner_id=by_partner_id)


@virtual
async def test_those_who_want_the_same_wait_for_one_answer() -> None:
    made, arthur, notes, clock = inquiries()
    first, other, partner = ask(made), ask(made), ask(made, by_partner_id=True)
    clock.now = 7.0
    async with anyio.create_task_group() as group:
        made.turn(group)
        await anyio.sleep(0.5)
        late = ask(made)
        made.turn(group)
    assert sorted(arthur.asked) == [("m", False), ("m", True)]
    assert first.result(0) is other.result(0) is late.result(0)
    assert partner.result(0).document == MODEL
    assert notes.taken == ["m", "m"]
    assert (notes.failures, notes.ended) == (["", ""], [None, None])
    latest = made.latest("m", by_partner_id=False)
    assert latest is first.result(0)
    clock.now = 10.0
    assert made.age_of(first.result(0)) == 3.0


@virtual
async def test_no_such_model_is_an_answer() -> None:
    made, _, notes, _ = inquiries(ModelError("Arthur has no model"))
    answer = ask(made)
    async with anyio.create_task_group() as group:
        made.turn(group)
    assert answer.result(0).document is None
    assert (notes.taken, notes.failures, notes.ended) == ([], [""], [None])
    assert not made.is_away(5.0)


@pytest.mark.parametrize(
    ("raised", "kind", "failures"),
    [
        (UnreachableError("away"), UnreachableError, ["away"]),
        (ConfigurationError("odd"), UnreachableError, ["odd"]),
        (KeyError("a bug"), UnreachableError, ["internal error (KeyError)"]),
        (CredentialsError("refused"), CredentialsError, []),  # a probe would tell nothing
    ],
)
def test_without_an_answer(raised: Exception, kind: type[Exception], failures: list[str]) -> None:
    @virtual
    async def test() -> None:
        made, _, notes, clock = inquiries(raised)
        answers = [ask(made), ask(made)]
        async with anyio.create_task_group() as group:
            made.turn(group)
        for answer in answers:
            assert type(answer.exception(0)) is kind
        assert (notes.failures, [type(each) for each in notes.ended]) == (failures, [kind])
        assert made.latest("m", by_partner_id=False) is None
        clock.now = 4.0
        assert made.is_away(5.0) is (kind is UnreachableError)
        clock.now = 5.0
        assert not made.is_away(5.0)
        clock.now = 4.0
        again = ask(made)
        async with anyio.create_task_group() as group:
            made.turn(group)
        assert again.result(0).document == MODEL
        assert not made.is_away(5.0)

    test()


@virtual
async def test_an_answer_may_take_so_long() -> None:
    made, _, notes, _ = inquiries(seconds=60.0)
    answer = ask(made)
    async with anyio.create_task_group() as group:
        made.turn(group)
    assert anyio.current_time() == pytest.approx(5.0, abs=0.1)
    too_late = "Arthur can't be reached: no answer came in time"
    assert str(answer.exception(0)) == too_late
    assert notes.failures == [too_late]


@virtual
async def test_waiting_for_ones_turn_is_not_arthurs_failure() -> None:
    made, _, notes, _ = inquiries()
    answers = [ask(made, f"m{number}") for number in range(120)]
    async with anyio.create_task_group() as group:
        made.turn(group)
    assert all(answer.exception(0) is None for answer in answers)
    assert set(notes.failures) == {""}


@virtual
async def test_what_a_worker_died_of_is_asked_again_by_the_next() -> None:
    made, arthur, _, _ = inquiries()
    answer = ask(made)
    async with anyio.create_task_group() as group:
        made.turn(group)
        await anyio.sleep(0.5)
        group.cancel_scope.cancel()
    assert not answer.done()
    made.enter()
    assert made.has_questions
    async with anyio.create_task_group() as group:
        made.turn(group)
    assert answer.result(0).document == MODEL
    assert len(arthur.asked) == 2


@virtual
async def test_whoever_has_gone_gets_no_answer() -> None:
    made, _, _, _ = inquiries()
    gone, there = ask(made), ask(made)
    async with anyio.create_task_group() as group:
        made.turn(group)
        gone.cancel()
    assert there.result(0).document == MODEL


@virtual
async def test_the_answers_that_are_kept_are_bounded() -> None:
    made, _, _, _ = inquiries(seconds=0.0)
    names = [f"m{number}" for number in range(model_inquiries.ANSWERS_KEPT + 10)]
    async with anyio.create_task_group() as group:
        for name in names:
            ask(made, name)
        made.turn(group)
    kept = [made.latest(name, by_partner_id=False) for name in names]
    assert len(kept) - kept.count(None) == model_inquiries.ANSWERS_KEPT


@virtual
async def test_the_worker_and_a_client_share_a_question() -> None:
    made, arthur, notes, _ = inquiries()
    async with anyio.create_task_group() as group:
        answer = ask(made)
        made.turn(group)
        schema = await made.fetch(group, "m", timeout_seconds=30.0)
    assert arthur.asked == [("m", False)]
    assert answer.result(0).schema is schema
    assert (notes.taken, notes.failures, notes.ended) == (["m"], [""], [None])


@virtual
async def test_the_workers_own_question_is_none_of_a_clients() -> None:
    made, arthur, notes, _ = inquiries()
    async with anyio.create_task_group() as group:
        schema = await made.fetch(group, "m", timeout_seconds=30.0)
    assert (notes.taken, notes.failures, notes.ended) == ([], [""], [])
    latest = made.latest("m", by_partner_id=False)
    assert latest is not None
    assert latest.schema is schema
    assert len(arthur.asked) == 1


@virtual
async def test_a_question_that_is_shared_may_take_as_long_as_the_most_patient_waits() -> None:
    made, _, _, _ = inquiries(seconds=20.0)
    answer = ask(made)
    async with anyio.create_task_group() as group:
        made.turn(group)
        await anyio.sleep(4.0)
        assert (await made.fetch(group, "m", timeout_seconds=30.0)).model_id == "m"
    assert answer.result(0).document == MODEL


@virtual
async def test_the_worker_waits_for_so_long() -> None:
    made, _, notes, _ = inquiries(seconds=60.0)
    async with anyio.create_task_group() as group:
        with pytest.raises(UnreachableError, match="no answer within 30 s"):
            await made.fetch(group, "m", timeout_seconds=30.0)
    assert anyio.current_time() == pytest.approx(30.0, abs=0.1)
    assert notes.failures == [], "the worker takes note of it, with what else it knows"


@virtual
async def test_what_a_client_finds_out_refuses_inferences_until_arthur_says_otherwise() -> None:
    made, _, notes, clock = inquiries(NOT_TEXT)
    answer = ask(made)
    async with anyio.create_task_group() as group:
        made.turn(group)
    assert answer.result(0).document == NOT_TEXT  # for clients there is such a model
    assert (notes.taken, notes.failures) == ([], [""])
    assert made.refusal("m") == "not a text model"
    assert made.refused == ""  # no inference of ours met it
    clock.now = model_inquiries.REFUSAL_SECONDS
    assert made.refusal("m") is None
    clock.now = 1.0
    ask(made)
    async with anyio.create_task_group() as group:
        made.turn(group)
    assert made.refusal("m") is None
    assert notes.taken == ["m"]


@virtual
async def test_refused_credentials_say_nothing_of_a_model() -> None:
    made, _, _, clock = inquiries()
    made.refuse("m", "credentials refused", is_of_model=False)
    assert made.refusal("m") == made.refused == "credentials refused"
    assert made.latest("m", by_partner_id=False) is None
    clock.now = model_inquiries.REFUSAL_SECONDS
    assert made.refused == ""
    clock.now = 0.0
    made.forget_refusal("m")
    assert made.refusal("m") is None


def test_whoever_waits_in_vain_finds_arthur_away_for_others() -> None:
    made, _, _, clock = inquiries()
    made.waited_in_vain()
    clock.now = 4.0
    assert made.is_away(5.0)
    clock.now = 5.0
    assert not made.is_away(5.0)


@virtual
async def test_a_throttled_question_is_no_failure() -> None:
    made, _, notes, _ = inquiries(UnreachableError("wait", throttled=True))
    answer = ask(made)
    async with anyio.create_task_group() as group:
        made.turn(group)
    assert str(answer.exception(0)) == "wait"
    assert notes.failures == []
