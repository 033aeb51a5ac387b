"""Every setting of the relay: its unit, its range, its default and its environment variable.

A setting `x` is given by keyword, `RelaySettings(x=...)`, or by the variable `ARTHUR_RELAY_X`; the
keyword wins. This module is loaded when a relay is made, not at import: pydantic-settings takes
longer to import than the rest of the caller's side together.
"""

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from annotated_types import Ge, Le
from pydantic import BeforeValidator, Field, PlainValidator, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from arthur_relay.errors import SettingsError
from arthur_relay.settings import variables
from arthur_relay.settings.types import (
    BuiltInRedactor,
    Redactor,
    explain,
    none_by_name,
    read_function,
    read_redactors,
    shown,
)

ENVIRONMENT_PREFIX = variables.ENVIRONMENT_PREFIX

_MIB = 1024 * 1024
_Rows = Annotated[int, Ge(1), Le(10_000_000)]
_Bytes = Annotated[int, Ge(1024), Le(1 << 40)]
_Seconds = Annotated[float, Ge(0.0), Le(31_536_000.0)]


class Overflow(StrEnum):
    """What happens when the queue is full."""

    DROP_OLDEST = "drop_oldest"
    """The oldest inference that waits is dropped."""
    DROP_NEWEST = "drop_newest"
    """The new inference is dropped."""
    BLOCK = "block"
    """The caller waits for room, for `block_timeout_seconds` at most."""
    SPILL = "spill"
    """What does not fit into memory waits in the spool."""


class Durability(StrEnum):
    """What rows in the spool survive."""

    PROCESS = "process"
    """The end of the process, by `kill -9` too."""
    POWER = "power"
    """A power cut as well: each write is synced to the disk."""


class Connect(StrEnum):
    """When the relay asks Arthur for the model."""

    EAGER = "eager"
    """When a handler is made, so that a wrong key or model is an error at once."""
    LAZY = "lazy"
    """In the background, when the first inference is to be sent."""


class Trace(StrEnum):
    """Which runs of LangChain are sent to Arthur Engine."""

    FULL = "full"
    """All: chains, agents, tools, retrievers and LLMs, as one trace."""
    LLM = "llm"
    """Those of LLMs alone, each as a trace of its own."""


Redactors = Annotated[tuple[BuiltInRedactor | Redactor, ...] | None, PlainValidator(read_redactors)]


def _function(value: Any) -> Callable[[Any], Any] | None:
    return None if value is None else read_function(value)


ENGINE_BATCH_SIZE = 50
ENGINE_MAX_IN_FLIGHT = 1
"""What `batch_size` and `max_in_flight` are by default where rows go to Arthur Engine.

One request at a time keeps a trace's root last: the Engine starts its evaluations when it gets the
root.
"""

MOST_HANGING = 128
"""How many requests, at most, are unanswered for so long that others are sent in their place."""


class RelaySettings(BaseSettings):
    """The relay's settings, immutable and hashable.

    Each setting is a keyword. What is not given comes from the environment.

    An environment variable that looks like a setting, but is none, is logged with the nearest name.
    If the nearest name is a setting of privacy, that is an error, because texts would be sent that
    must not be.

    Settings are equal when all values are equal; most functions among the redactors are equal only
    to themselves.

    Raises:
        SettingsError: A value is not allowed (the message names the setting, its environment
            variable, the value and the allowed values), or a variable's name is near that of a
            setting of privacy.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=False,
    )

    batch_size: _Rows = Field(500, description="rows in a request, at most; 1 or more")
    batch_bytes: _Bytes = Field(
        2 * _MIB, description="bytes in a request, at most, unless one row is larger; 1024 or more"
    )
    flush_interval_seconds: _Seconds = Field(
        1.0, description="how long a row waits for others to share a request; seconds, 0 or more"
    )
    queue_size: _Rows = Field(100_000, description="inferences that may wait in memory; 1 or more")
    queue_bytes: _Bytes = Field(
        64 * _MIB, description="bytes that may wait in memory, open runs included; 1024 or more"
    )
    overflow: Overflow = Field(
        Overflow.DROP_OLDEST,
        description="what to do when the queue is full: drop_oldest, drop_newest, block, or spill"
        " (what does not fit into memory waits in the spool)",
    )
    spool_dir: Annotated[Path | None, BeforeValidator(none_by_name)] = Field(
        None, description="a directory; what waits is kept there, on disk, or none"
    )
    spool_bytes: Annotated[int, Ge(_MIB), Le(1 << 44)] = Field(
        1024 * _MIB, description="bytes that a process's spool may take; 1048576 or more"
    )
    durability: Durability = Field(
        Durability.PROCESS,
        description="what a row in the spool survives: the end of its process, or a power cut",
    )
    dead_letter_file: Annotated[Path | None, BeforeValidator(none_by_name)] = Field(
        None, description="a file; rejected rows are appended to it as JSON Lines, or none"
    )
    dead_letter_bytes: Annotated[int, Ge(1024), Le(1 << 40)] = Field(
        16 * _MIB,
        description="bytes of rejected rows that are kept in the spool or a fleet's broker, or in"
        " the file before it is rotated; 1024 or more",
    )
    on_dead_letter: Annotated[
        Callable[[Any], object] | None, PlainValidator(_function), BeforeValidator(none_by_name)
    ] = Field(None, description="in code: a function that is called with each rejected row")
    block_timeout_seconds: _Seconds = Field(
        10.0, description="how long `overflow = block` may hold the caller; seconds, 0 or more"
    )
    max_in_flight: Annotated[int, Ge(1), Le(256)] = Field(
        4, description="requests on their way at once, beside up to 128 that hang; 1 to 256"
    )
    connect_timeout_seconds: Annotated[float, Ge(0.01), Le(3600.0)] = Field(
        5.0, description="how long start-up may wait for Arthur to answer; seconds, 0.01 to 3600"
    )
    request_timeout_seconds: Annotated[float, Ge(0.01), Le(3600.0)] = Field(
        30.0, description="one request, from connecting to the answer; seconds, 0.01 to 3600"
    )
    connection_max_age_seconds: Annotated[float, Ge(0.01), Le(86_400.0)] = Field(
        300.0,
        description="how long a connection is used before another is made, so that a name which"
        " has moved is noticed; seconds, 0.01 to 86400",
    )
    client_cert_file: Annotated[Path | None, BeforeValidator(none_by_name)] = Field(
        None,
        description="a PEM file with a client certificate (and its chain) for TLS with Arthur, read"
        " again when it changes, or none",
    )
    client_key_file: Annotated[Path | None, BeforeValidator(none_by_name)] = Field(
        None,
        description="a PEM file with its key, not encrypted; none where that is in the same file",
    )
    retry_initial_seconds: Annotated[float, Ge(0.001), Le(3600.0)] = Field(
        0.5, description="the longest first back-off, doubled by each retry; seconds, 0.001 to 3600"
    )
    retry_max_seconds: Annotated[float, Ge(0.001), Le(3600.0)] = Field(
        30.0, description="the longest back-off; seconds, 0.001 to 3600"
    )
    retry_max_elapsed_seconds: _Seconds = Field(
        86_400.0,
        description="a row that failed for longer than this is dropped; seconds, 0 or more",
    )
    retry_after_max_seconds: _Seconds = Field(
        300.0, description="the longest `Retry-After` that is obeyed; seconds, 0 or more"
    )
    breaker_failures: Annotated[int, Ge(1), Le(1000)] = Field(
        5, description="failed requests in a row that open the breaker; 1 to 1000"
    )
    breaker_max_seconds: Annotated[float, Ge(0.01), Le(3600.0)] = Field(
        30.0,
        description="the longest wait between probes of an open breaker; seconds, 0.01 to 3600",
    )
    shutdown_timeout_seconds: _Seconds = Field(
        5.0, description="the one deadline of close, flush and exit by default; seconds, 0 or more"
    )
    max_open_runs: _Rows = Field(
        10_000, description="LangChain runs that may be open at once; 1 or more"
    )
    run_max_age_seconds: Annotated[float, Ge(0.01), Le(31_536_000.0)] = Field(
        3600.0, description="a run without an end for this long is abandoned; seconds, 0.01 or more"
    )
    redact: Redactors = Field(
        None,
        description="what is redacted in texts: email, phone, credit_card, ip_address, api_key or"
        " all, several separated by commas; in code also functions, and a sequence of both",
    )
    hide_inputs: bool = Field(default=False, description="send `[hidden]` for each input text")
    hide_outputs: bool = Field(
        default=False,
        description="send `[hidden]` for each output text and its tool calls, and no tokens",
    )
    max_text_bytes: Annotated[
        Annotated[int, Ge(64), Le(1 << 40)] | None, BeforeValidator(none_by_name)
    ] = Field(
        None, description="bytes of each text, longer ones are cut and marked; 64 or more, or none"
    )
    sample_rate: Annotated[float, Ge(0.0), Le(1.0)] = Field(
        1.0, description="the part of the runs that is sent, chosen by their ids; 0 to 1"
    )
    connect: Connect = Field(
        Connect.EAGER, description="ask Arthur for the model at start (eager) or later (lazy)"
    )
    trace: Trace = Field(
        Trace.FULL,
        description="with Arthur Engine: send whole traces (full), or LLM runs alone, each as a"
        " trace of its own (llm)",
    )
    flush_on_sigterm: bool = Field(
        default=False, description="end the process by SystemExit on SIGTERM, so that it flushes"
    )
    allow_insecure: bool = Field(
        default=False, description="allow http:// to a host that is not this machine"
    )
    disabled: bool = Field(
        default=False, description="capture nothing, start nothing, cost nothing"
    )

    def __init__(self, **values: Any) -> None:
        fields = RelaySettings.model_fields
        known = tuple(ENVIRONMENT_PREFIX + name.upper() for name in fields)
        variables.warn_of_unknown(os.environ, known)
        try:
            super().__init__(**values)
        except ValidationError as error:
            text = explain(
                error,
                fields,
                prefix=ENVIRONMENT_PREFIX,
                by_keyword=True,
                default=_shown_default,
            )
            raise SettingsError(text) from None  # pydantic's own error adds nothing
        if not self.disabled:
            given = [ENVIRONMENT_PREFIX + name.upper() for name in values]
            variables.refuse_near_privacy(os.environ, known, given=given)
        if self.overflow is Overflow.SPILL and self.spool_dir is None:
            raise SettingsError(
                "overflow (or ARTHUR_RELAY_OVERFLOW) can't be 'spill' without a spool: set"
                " spool_dir (or ARTHUR_RELAY_SPOOL_DIR) to a directory."
            )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the name is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Say where values come from.

        A `.env` file is looked at only if there is one: to ask for each of the fields in none
        takes as long as all of the environment does.
        """
        has_file = getattr(dotenv_settings, "env_file", None) is not None
        files = (dotenv_settings,) if has_file else ()
        return (init_settings, env_settings, *files, file_secret_settings)

    def for_engine(self) -> Self:
        """Return the same settings with Arthur Engine's defaults for what was not given.

        It stores about 120 spans a second, whether clients send at once or in turn.
        """
        defaults = {"batch_size": ENGINE_BATCH_SIZE, "max_in_flight": ENGINE_MAX_IN_FLIGHT}
        return self.model_copy(
            update={
                name: value for name, value in defaults.items() if name not in self.model_fields_set
            }
        )

    @property
    def gives_up_oldest(self) -> bool:
        """Whether the oldest inference is dropped when nothing else makes room."""
        return self.overflow in (Overflow.DROP_OLDEST, Overflow.SPILL)

    @property
    def dead_letter_ring_bytes(self) -> int:
        """Bytes of rejected rows that are kept in memory: a sixteenth of `queue_bytes`."""
        return self.queue_bytes // 16

    @property
    def open_runs_bytes(self) -> int:
        """Bytes that open runs may take: three sixteenths of `queue_bytes`."""
        return self.queue_bytes // 4 - self.dead_letter_ring_bytes

    @property
    def capture_queue_bytes(self) -> int:
        """Bytes that may wait between the callers and the worker: an eighth of `queue_bytes`."""
        return self.queue_bytes // 8

    @property
    def buffer_bytes(self) -> int:
        """Bytes of rows that may wait or be in flight: the rest, five eighths."""
        others = self.open_runs_bytes + self.capture_queue_bytes + self.dead_letter_ring_bytes
        return self.queue_bytes - others


def _shown_default(name: str) -> str:
    return shown(RelaySettings.model_fields[name].default)
