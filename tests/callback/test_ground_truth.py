"""Ground truth of LangChain runs: a user's thumbs-up is one call, whenever it comes."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableConfig

from arthur_relay import ArthurCallbackHandler, RelaySettings
from arthur_relay.stats import DropReason

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox


def handler_of(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, **settings: float
) -> ArthurCallbackHandler:
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    return ArthurCallbackHandler.from_env(settings=RelaySettings(**settings))


def truths(sandbox: ArthurSandbox) -> dict[str, object]:
    return {row["partner_inference_id"]: row.get("ground_truth_data") for row in sandbox.inferences}


def ask(handler: ArthurCallbackHandler, run_id: uuid.UUID) -> None:
    config = RunnableConfig(callbacks=[handler], run_id=run_id)
    FakeListChatModel(responses=["answer"]).invoke("question", config)


def test_it_joins_its_inference(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = handler_of(sandbox, monkeypatch)
    first, second = uuid.uuid4(), uuid.uuid4()
    ask(handler, first)
    handler.log_ground_truth(first, {"thumbs_up": True})  # nothing of it has been sent yet
    ask(handler, second)
    assert handler.flush(30) == (3, 0, {}, 0, False)
    handler.log_ground_truth(str(second), {"thumbs_up": False})  # long afterwards
    assert handler.relay.close(30) == (4, 0, {}, 0, False)
    assert truths(sandbox) == {str(first): {"thumbs_up": True}, str(second): {"thumbs_up": False}}


def test_it_may_come_before_the_run_has_ended(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = handler_of(sandbox, monkeypatch)
    run_id = uuid.uuid4()
    model = FakeListChatModel(responses=["a long answer"])
    for number, _ in enumerate(
        model.stream("question", RunnableConfig(callbacks=[handler], run_id=run_id))
    ):
        if number == 1:
            handler.log_ground_truth(run_id, {"thumbs_up": True})
            assert handler.flush(30) == (0, 0, {}, 0, False)  # it waits with its run
    assert handler.relay.close(30) == (2, 0, {}, 0, False)
    assert truths(sandbox) == {str(run_id): {"thumbs_up": True}}


def test_nothing_is_raised(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = handler_of(sandbox, monkeypatch)
    handler.log_ground_truth("id", None)  # type: ignore[arg-type] # on purpose
    assert handler.relay.stats().capture_errors == 1
    assert handler.relay.close(30) == (0, 0, {"unreadable": 1}, 0, False)


def test_what_is_not_in_the_sample_has_none(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = handler_of(sandbox, monkeypatch, sample_rate=0.5)
    ids = [uuid.uuid4() for _ in range(40)]
    for run_id in ids:
        ask(handler, run_id)
        handler.log_ground_truth(run_id, {"thumbs_up": True})
    result = handler.relay.close(30)
    found = truths(sandbox)
    assert all(found.values())
    assert result.delivered == 2 * len(found)
    assert result.dropped == {DropReason.SAMPLED: 80 - 2 * len(found)}
