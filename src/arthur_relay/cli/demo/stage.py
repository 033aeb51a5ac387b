"""The parts of a demo: a chat model, Arthur, the handler between them, and an outage."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Self

from langchain_core.language_models import BaseChatModel

from arthur_relay.callback import ArthurCallbackHandler
from arthur_relay.cli import fail
from arthur_relay.cli.demo.model import DemoChatModel, split_tokens
from arthur_relay.cli.demo.recording import Recording
from arthur_relay.cli.demo.script import Conversation, answer_to
from arthur_relay.cli.sandbox import open_sandbox
from arthur_relay.errors import ConfigurationError
from arthur_relay.sandbox import ArthurSandbox
from arthur_relay.settings import RelaySettings

if TYPE_CHECKING:
    from arthur_relay.cli.demo.screen import View

LONGEST_STREAM_SECONDS: Final = 25.0
"""The demo's model talks faster when there is so much to say that it would take longer."""

TOKENS_PER_SECOND: Final = 30.0

DEMO_SETTINGS: Final = {
    "flush_interval_seconds": 0.2,
    "retry_initial_seconds": 0.2,
    "retry_max_seconds": 0.5,
    "breaker_max_seconds": 0.5,
    "shutdown_timeout_seconds": 10.0,
}
"""A recovery should be over within seconds of looking at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The parts that a demo runs with.

    Attributes:
        handler: Logs the model's answers.
        model: Streams answers.
        who: The model's name.
        arthur_url: Arthur's address.
        sandbox: The local Arthur; None when it is the real one.
    """

    handler: ArthurCallbackHandler
    model: BaseChatModel
    who: str
    arthur_url: str
    sandbox: ArthurSandbox | None = None


@contextlib.contextmanager
def local_stage(
    conversations: Sequence[Conversation], tokens_per_second: float | None
) -> Iterator[Stage]:
    """Run a local Arthur and a model of our own.

    Args:
        conversations: The prompts.
        tokens_per_second: The model's pace; None for one at which nobody gets bored.

    Raises:
        typer.Exit: There is no free port, or the environment can't be used; stderr says so.
    """
    # With all values given, no ARTHUR_RELAY_* variable changes what is shown.
    defaults = {name: field.default for name, field in RelaySettings.model_fields.items()}
    with open_sandbox() as sandbox:
        try:
            handler = ArthurCallbackHandler.from_credentials(
                sandbox.model_id,
                sandbox.url,
                sandbox.login,
                sandbox.password,
                settings=RelaySettings(**{**defaults, **DEMO_SETTINGS}),
            )
        except ConfigurationError as error:  # VERIFY_SSL is read from the environment
            fail(str(error), code=2)
        pace = tokens_per_second or _pace_for(conversations)
        with handler:
            yield Stage(
                handler=handler,
                model=DemoChatModel(delay_seconds=1 / pace),
                who="the demo's own chat model",
                arthur_url=sandbox.url,
                sandbox=sandbox,
            )


@contextlib.contextmanager
def real_stage() -> Iterator[Stage]:
    """Use the Arthur of the environment, and OpenAI.

    Raises:
        typer.Exit: Something is missing for that; stderr says what.
    """
    if find_spec("langchain_openai") is None:
        fail("--live needs langchain-openai: run pip install langchain-openai.", code=2)
    if not os.environ.get("OPENAI_API_KEY"):
        fail("--live needs OPENAI_API_KEY in the environment.", code=2)
    try:
        settings = RelaySettings(flush_interval_seconds=0.2)
        if settings.disabled:
            fail("--live has nothing to show while ARTHUR_RELAY_DISABLED is set.", code=2)
        handler = ArthurCallbackHandler.from_env(settings=settings)
    except ConfigurationError as error:
        fail(str(error), code=2)
    with handler:
        name, model = _openai_model()
        yield Stage(
            handler=handler,
            model=model,
            who=f"OpenAI's {name}",
            arthur_url=os.environ.get("ARTHUR_ENDPOINT_URL") or "https://app.arthur.ai",
        )


def _openai_model() -> tuple[str, BaseChatModel]:
    from langchain_openai import ChatOpenAI  # noqa: PLC0415 - optional, and slow to import

    options: dict[str, Any] = {}
    if os.environ.get("OPENAI_MODEL"):
        options["model"] = os.environ["OPENAI_MODEL"]
    model = ChatOpenAI(streaming=True, **options)
    return model.model_name, model


def _pace_for(conversations: Sequence[Conversation]) -> float:
    """Return tokens a second at which all answers take no longer than the longest stream may."""
    tokens = sum(len(split_tokens(answer_to(turn))) for turns in conversations for turn in turns)
    return max(TOKENS_PER_SECOND, tokens / LONGEST_STREAM_SECONDS)


class Outage(threading.Thread):
    """Takes a sandbox away for some seconds, so that the stream goes on meanwhile.

    A context manager: leaving it ends the outage, if it has not ended yet.

    Args:
        sandbox: Refuses connections during the outage.
        recording: Records when the outage begins and ends.
        view: Shows both as notes.
        seconds: How long the outage lasts.
    """

    def __init__(
        self, sandbox: ArthurSandbox, recording: Recording, view: View, *, seconds: float
    ) -> None:
        super().__init__(name="demo-outage")
        self._sandbox, self._recording, self._view = sandbox, recording, view
        self._seconds = seconds
        self._enough = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._enough.set()
        self.wait()

    def begin(self) -> None:
        """Take Arthur away, once."""
        if self.ident is None:
            self.start()

    def wait(self) -> None:
        """Return when the outage is over, or was never begun."""
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        """Take Arthur away, and bring it back."""
        self._sandbox.go_away()
        self._recording.gone()
        self._view.note("Arthur is gone: it refuses connections.")
        self._enough.wait(self._seconds)
        self._sandbox.come_back()
        self._recording.back()
        self._view.note(f"Arthur is back, after {self._recording.outage_seconds:.1f} s.")
