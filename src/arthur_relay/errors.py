"""The errors that a caller can see, as one tree. Each message says what was wrong and what to do.

RelayError
├── ConfigurationError (also a ValueError)
│   ├── SettingsError        a setting or an environment variable has a value that is not allowed
│   ├── CredentialsError     no login or key was given, or Arthur refused it
│   ├── ModelError           Arthur has no such model, or the model is not an LLM
│   └── SpoolError           the spool's directory or file can't be used
└── UnreachableError         Arthur could not be asked now; asking again later may work

`capture()` and the callback never raise any of them; constructors and lifecycle calls do.
"""

import traceback
from collections.abc import Callable
from errno import EMFILE, ENFILE
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class RelayError(Exception):
    """The base of every error that arthur-relay raises on purpose."""


class ConfigurationError(RelayError, ValueError):
    """What the user gave can't work; trying again without a change won't help."""


class SettingsError(ConfigurationError):
    """A setting, by keyword or by environment variable, has a value that is not allowed."""


class CredentialsError(ConfigurationError):
    """There are no credentials, or Arthur refused them."""


class ModelError(ConfigurationError):
    """The model is unknown to Arthur, or it has no text input or no text output.

    Attributes:
        reason: The same in a few words; rejected inferences are counted by it.
    """

    def __init__(self, message: str, *, reason: str = "unknown model") -> None:
        super().__init__(message)
        self.reason = reason


class SpoolError(ConfigurationError):
    """The spool's directory or file can't be used."""


class UnreachableError(RelayError):
    """Arthur did not answer, or its answer can't be understood.

    Attributes:
        retry_after_seconds: The least wait that Arthur asked for, or None.
        throttled: Whether Arthur works and only asks to wait (429).
    """

    def __init__(
        self, message: str, *, retry_after_seconds: float | None = None, throttled: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.throttled = throttled


def safe_traceback(error: BaseException) -> str:
    """Return the types of an error and its causes, and where they were raised, for a log.

    Their texts are left out, because they might quote a prompt or a credential. For the same reason
    a log record must not carry the error itself: error trackers keep the variables of its frames.
    """
    lines = []
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()  # causes can form a circle
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        lines += [f"{type(found).__name__}, from:\n", *traceback.format_tb(found.__traceback__)]
        waiting.append(found.__cause__ or found.__context__)
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions
    return "".join(lines).rstrip()


def unable_to_start(error: BaseException) -> ConfigurationError:
    """Return the error to raise when the worker could not start, or died before it was ready.

    It gives advice only if the given error says what is wrong; otherwise it would be a guess.
    """
    if isinstance(error, ConfigurationError):
        return error
    if isinstance(error, RuntimeError) and "new thread" in str(error):
        advice = ": the interpreter shuts down" if "shutdown" in str(error) else _NO_THREAD
        return ConfigurationError(f"The relay can't start, because it gets no thread{advice}.")
    if isinstance(error, OSError) and error.errno in (EMFILE, ENFILE):
        return ConfigurationError(
            f"The relay can't start ({error.strerror}): the limit on open files is reached;"
            " raise it (ulimit -n), or close what is not used."
        )
    text = f": {error}" if str(error) else ""
    return ConfigurationError(f"The relay can't start ({type(error).__name__}{text}).")


_NO_THREAD = (
    ": the limit on threads, or on memory, is reached; raise it (ulimit -u, or the container's"
    " pids limit), or end threads that are not needed"
)


def in_one_sentence(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function raise our errors as if they had happened in it: by the sentence alone.

    How the relay's inside came to it, over threads and libraries, is of no use to who started it,
    and would be sixty lines and more above the sentence that says what to do.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except RelayError as error:
            raise error.with_traceback(None) from None

    return call
