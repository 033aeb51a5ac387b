"""What an application's own tests look like: that its calls reach Arthur, also after an outage.

For those who test an application that logs to Arthur. Run them here, without any key:

    pip install 'arthur-relay[daemon,engine]' pytest
    pytest
"""

import pytest
from answers import answer

from arthur_relay import ArthurCallbackHandler, Relay
from arthur_relay.testing import ArthurSandbox, MemoryDestination, MemoryEngine

QUESTION = "How is the weather?"


def test_an_answer_is_an_inference(arthur_memory: tuple[Relay, MemoryDestination]) -> None:
    relay, destination = arthur_memory
    answer(QUESTION, ArthurCallbackHandler(relay=relay), user_id="u1")
    relay.flush()
    (row,) = destination.inferences
    assert QUESTION in row["inference_data"]["input_text"]
    assert row["inference_data"]["output_text"] == "It is sunny."


def test_an_answer_is_a_trace(arthur_memory_engine: tuple[Relay, MemoryEngine]) -> None:
    relay, destination = arthur_memory_engine
    answer(QUESTION, ArthurCallbackHandler(relay=relay), user_id="u1")
    relay.flush()
    assert [span["kind"] for span in destination.spans] == ["PROMPT", "LLM", "CHAIN"]
    assert {span["attributes"]["user.id"] for span in destination.spans} == {"u1"}


def test_an_outage_loses_nothing(
    arthur_sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in arthur_sandbox.environment().items():
        monkeypatch.setenv(name, value)
    arthur_sandbox.faults.status(503, times=2)
    handler = ArthurCallbackHandler.from_env()
    answer(QUESTION, handler, user_id="u1")
    assert handler.relay.close().delivered == 1
    (row,) = arthur_sandbox.inferences
    assert row["inference_data"]["user_id"] == "u1"
