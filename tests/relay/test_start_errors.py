"""What a person sees when a handler can't be made: one sentence, at the end, soon read."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay import ArthurCallbackHandler, Relay, RelayError, RelaySettings
from tests.environment import forget_arthur

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay.sandbox import ArthurSandbox

pytestmark = pytest.mark.one_python

MOST_LINES = 10
"""The sentence, the line of the program, and the few that Python shows of the call."""


def of_credentials(sandbox: ArthurSandbox, **other: Any) -> object:
    given = {
        "model_id": sandbox.model_id,
        "arthur_url": sandbox.url,
        "arthur_login": sandbox.login,
        "arthur_password": sandbox.password,
    }
    return ArthurCallbackHandler.from_credentials(**{**given, **other})


STARTS: dict[str, Callable[[ArthurSandbox], object]] = {
    "Arthur has no model with id nope": lambda s: of_credentials(s, model_id="nope"),
    "Arthur refused the login": lambda s: of_credentials(s, arthur_password="wrong"),
    "spool_dir /proc/none can't be used": lambda s: of_credentials(
        s, settings=RelaySettings(spool_dir="/proc/none")
    ),
    "ARTHUR_RELAY_BATCH_SIZE) can't be 'many'": lambda _s: RelaySettings(batch_size="many"),
    "ARTHUR_API_KEY": lambda _s: Relay.from_env(),
    "task_id can't be 'x'": lambda s: ArthurCallbackHandler.from_engine(
        task_id="x", base_url=s.url, api_key="key"
    ),
}


@pytest.mark.parametrize("says", STARTS)
def test_the_sentence_comes_last_and_is_soon_read(
    says: str,
    sandbox: ArthurSandbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    forget_arthur(monkeypatch)
    with pytest.raises(RelayError) as found:
        STARTS[says](sandbox)
    shown = "".join(traceback.format_exception(found.value))
    assert says in shown.splitlines()[-1]
    logged = [line for each in caplog.messages for line in each.splitlines()]
    ours = shown.splitlines()[2:]  # those of this test are its user's
    assert len(ours) + len(logged) <= MOST_LINES + 2, shown
    assert shown.count("Traceback") == 1
