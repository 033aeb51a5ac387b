"""A relay and a handler are each one thing: copies are the same, and pickling is refused."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from typing import Any

import pytest

from arthur_relay import ArthurCallbackHandler
from arthur_relay.testing import arthur_memory
from tests.relay.relays import Memory, inference

__all__ = ["arthur_memory"]  # the fixture, as users import it


@pytest.fixture(params=["relay", "handler"])
def thing(request: pytest.FixtureRequest, arthur_memory: Memory) -> Any:
    relay, _ = arthur_memory
    return relay if request.param == "relay" else ArthurCallbackHandler(relay=relay)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_says_what_to_do_instead(thing: Any, protocol: int) -> None:
    with pytest.raises(TypeError, match=r"can't be pickled.*from_env\(\)") as caught:
        pickle.dumps({"callbacks": [thing]}, protocol)
    assert type(thing).__name__ in str(caught.value)


def test_so_does_a_subclass_and_whatever_pickles_in_pure_python(arthur_memory: Memory) -> None:
    class Own(ArthurCallbackHandler):
        pass

    pickler = pickle._Pickler(io.BytesIO())  # cloudpickle's and dill's
    with pytest.raises(TypeError, match=r"Own can't be pickled.*Own\.from_env\(\)"):
        pickler.dump(Own(relay=arthur_memory[0]))


def test_so_does_a_process_that_is_spawned_with_it(thing: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=print, args=(thing,))
    with pytest.raises(TypeError, match="make one in the process that uses it"):
        process.start()


def test_copies_are_the_same_one_and_work(thing: Any, arthur_memory: Memory) -> None:
    relay, _ = arthur_memory
    assert copy.copy(thing) is thing
    assert copy.deepcopy({"callbacks": [thing]})["callbacks"][0] is thing
    relay.capture(inference())
    assert thing.flush(30).delivered == 1
