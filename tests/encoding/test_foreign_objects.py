"""Objects that never say what they are hold up the worker briefly, once a class."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from pydantic import BaseModel

from arthur_relay import ArthurCallbackHandler, Relay, RelaySettings
from arthur_relay.destinations.scope.schema import Attribute
from arthur_relay.encoding.foreign_objects import (
    MOST_SILENT,
    TRUSTED_AFTER,
    ForeignObjects,
    SilentObjectError,
)
from arthur_relay.system import native
from arthur_relay.testing import LLM_ATTRIBUTES, MemoryDestination, MemoryEngine
from tests.relay.relays import inference

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 0.05

freed = threading.Event()
"""What the objects wait for; set at the end, so that no thread is left."""


@pytest.fixture(autouse=True, scope="module")
def _free() -> Iterator[None]:
    yield
    freed.set()


def wait() -> str:
    freed.wait()
    return "at last"


class Said:
    """Says at once what it is, and remembers which thread asked."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def __str__(self) -> str:
        self.threads.append(threading.get_ident())
        return "said"


class Raises:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error


def blocking() -> Any:
    """An object of a new class whose `__str__` blocks; `asked` counts the calls."""

    class Blocks:
        asked = 0

        def __str__(self) -> str:
            type(self).asked += 1
            return wait()

    return Blocks()


def test_a_class_that_does_not_answer_is_asked_once() -> None:
    foreign, value = ForeignObjects(LIMIT), blocking()
    for _ in range(3):
        with pytest.raises(SilentObjectError):
            foreign.ask(str, value)
    assert type(value).asked == 1
    assert foreign.ask(str, Said()) == "said", "others are asked all the same"


def test_the_log_names_the_class_once(caplog: pytest.LogCaptureFixture) -> None:
    foreign, value = ForeignObjects(LIMIT), blocking()
    for _ in range(3):
        with pytest.raises(SilentObjectError):
            foreign.ask(str, value)
    (record,) = caplog.records
    assert "Blocks has not said within 0.05 s what it is" in record.getMessage()


def test_no_class_is_asked_any_more_after_so_many_that_did_not_answer() -> None:
    foreign, trusted = ForeignObjects(LIMIT), Said()
    for _ in range(TRUSTED_AFTER):
        foreign.ask(str, trusted)
    for _ in range(MOST_SILENT):
        with pytest.raises(SilentObjectError):
            foreign.ask(str, blocking())
    last = blocking()
    with pytest.raises(SilentObjectError):
        foreign.ask(str, last)
    assert type(last).asked == 0
    assert foreign.ask(str, trusted) == "said"
    assert foreign.ask(str, 7) == "7"


def test_a_class_that_is_quick_is_trusted_after_a_while() -> None:
    foreign, value = ForeignObjects(30), Said()
    for _ in range(TRUSTED_AFTER + 2):
        foreign.ask(str, value)
    here = threading.get_ident()
    assert here not in value.threads[:TRUSTED_AFTER]
    assert value.threads[TRUSTED_AFTER:] == [here] * 2


class Slow:
    """Takes its time to say what it is, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.seconds = 0.5
        self.threads: list[int] = []

    def __str__(self) -> str:
        self.now += self.seconds
        self.threads.append(threading.get_ident())
        return "said"


def test_a_class_that_answers_slowly_takes_a_twentieth_of_the_time() -> None:
    value = Slow()
    foreign = ForeignObjects(30, clock=lambda: value.now)
    for _ in range(10_000):
        with suppress(SilentObjectError):
            foreign.ask(str, value)
        value.now += 0.01
    assert len(value.threads) >= 3
    assert len(value.threads) * value.seconds < 1 + value.now / 20 + value.seconds
    assert foreign.ask(str, Said()) == "said", "others are asked all the same"


def test_a_class_that_becomes_slow_is_not_trusted_any_more() -> None:
    value = Slow()
    value.seconds = 0.0
    foreign = ForeignObjects(30, clock=lambda: value.now)
    for _ in range(TRUSTED_AFTER):
        foreign.ask(str, value)
    value.seconds = 0.1
    foreign.ask(str, value)  # the last time here
    for _ in range(5):
        foreign.ask(str, value)
    here = threading.get_ident()
    assert [each == here for each in value.threads[TRUSTED_AFTER:]] == [True, *[False] * 5]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyError("x"), KeyError), (SystemExit(), RuntimeError), (GeneratorExit(), RuntimeError)],
)
def test_what_an_object_raises_is_raised(error: BaseException, raised: type[Exception]) -> None:
    foreign = ForeignObjects(30)
    for _ in range(TRUSTED_AFTER + 2):
        with pytest.raises(raised):
            foreign.ask(str, Raises(error))


def test_without_threads_an_object_is_asked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(native.BackgroundThread, "start", start)
    value = Said()
    assert ForeignObjects(30).ask(str, value) == "said"
    assert value.threads == [threading.get_ident()]


class BlocksInStr:
    def __str__(self) -> str:
        return wait()


class BlocksInRepr:
    def __repr__(self) -> str:
        return wait()


class BlocksInDump(BaseModel):
    number: int = 1

    def model_dump(self, **_: Any) -> dict[str, Any]:
        return {"text": wait()}


@dataclasses.dataclass
class BlocksInField:
    number: int = 1

    def __getattribute__(self, name: str) -> Any:
        return wait() if name == "number" else super().__getattribute__(name)


class BlocksInMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return len(wait())

    def __iter__(self) -> Iterator[str]:
        wait()
        return iter("ab")

    def __len__(self) -> int:
        return 2


class BlocksInInt(int):
    def __int__(self) -> int:
        return len(wait())


class BlocksInDict:
    __slots__ = ()

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        return {"text": wait()}


class BlocksInDtype:
    @property
    def dtype(self) -> str:
        return wait()


SILENT: dict[str, Callable[[], Any]] = {
    each.__name__: each
    for each in (
        *(BlocksInStr, BlocksInRepr, BlocksInDump, BlocksInField),
        *(BlocksInMapping, BlocksInInt, BlocksInDict),
    )
}


def run(handler: ArthurCallbackHandler, inputs: Any, **more: Any) -> None:
    run_id = uuid4()
    handler.on_chain_start({}, inputs, run_id=run_id, **more)
    handler.on_chain_end({"answer": 1}, run_id=run_id)


@pytest.mark.parametrize("make", SILENT.values(), ids=SILENT.keys())
@pytest.mark.parametrize(
    "inputs",
    [
        lambda value: {"question": "q", "value": value},
        lambda value: {"deep": [{"value": (value, "beside")}]},
        lambda value: {"set": value, "list": [value] * 5},
    ],
)
def test_spans_are_delivered_whatever_is_in_them(
    make: Callable[[], Any], inputs: Callable[[Any], Any]
) -> None:
    engine = MemoryEngine()
    engine.row_format._foreign = ForeignObjects(LIMIT)
    with Relay(engine, model_id="task") as relay:
        handler = ArthurCallbackHandler(relay=relay)
        run(handler, inputs(make()))
        run(handler, {"question": "another"})
        result = relay.flush(30)
        assert (result.delivered, result.pending) == (2, 0)
        assert relay.stats().attributes_omitted > 0
    values = sorted(span["attributes"]["input.value"] for span in engine.spans)
    assert any(f"<{make.__name__}>" in value for value in values)
    assert not any("at last" in value for value in values)


def test_keys_and_ids_that_block() -> None:
    engine = MemoryEngine()
    engine.row_format._foreign = ForeignObjects(LIMIT)
    with Relay(engine, model_id="task") as relay:
        handler = ArthurCallbackHandler(relay=relay)
        run(handler, {"by key": {BlocksInStr(): 1}})
        run(handler, {}, metadata={"session_id": type("Id", (str,), {"__str__": wait})("s")})
        assert relay.flush(30).delivered == 2
    assert '"<BlocksInStr>":1' in engine.spans[0]["attributes"]["input.value"]


class BlocksInModel(BaseModel):
    def model_dump(self, **_: Any) -> dict[str, Any]:
        return {"text": wait()}


@pytest.mark.parametrize("make", [BlocksInModel, BlocksInMapping, BlocksInDtype])
@pytest.mark.parametrize("kind", ["STRING", "INTEGER", "ARRAY(STRING)"])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"a": [value]}])
def test_inferences_are_delivered_whatever_is_in_them(
    make: Callable[[], Any], kind: str, wrap: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ForeignObjects.__init__, "__defaults__", (LIMIT, perf_counter))
    arthur = MemoryDestination([*LLM_ATTRIBUTES, Attribute("extra", kind, "NON_INPUT_DATA")])
    with Relay(arthur, model_id="m", settings=RelaySettings()) as relay:
        relay.capture(inference(attributes={"extra": wrap(make())}))
        relay.capture(inference())
        assert relay.flush(30).delivered == 2
    assert [each["inference_data"].get("extra") for each in arthur.inferences] == [None, None]
