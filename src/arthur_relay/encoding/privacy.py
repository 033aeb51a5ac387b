"""Hides, redacts and cuts texts before anything is stored or sent. Fails closed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import orjson

from arthur_relay.encoding.coerce import LIKELIHOODS, TEXT, TOKENS
from arthur_relay.encoding.plain_values import clean_text
from arthur_relay.encoding.redactors import BUILT_IN
from arthur_relay.encoding.run_fields import RUN_VALUES
from arthur_relay.encoding.text import truncate_text
from arthur_relay.inference import MAX_ERROR_CHARACTERS
from arthur_relay.sentences import named
from arthur_relay.settings import RelaySettings
from arthur_relay.settings.types import BuiltInRedactor
from arthur_relay.system.log_once import LogOnce
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.privacy")

HIDDEN = "[hidden]"
"""Replaces a text that `hide_inputs` or `hide_outputs` hides."""

WITHHELD = "[withheld: redaction failed]"
"""Replaces a text on which a redactor failed."""

CUT_ERROR_CHARACTERS = 64
"""The characters that are removed from the end of an error that the callback has cut: a redactor
does not recognise half a secret."""

Coerce = Callable[[Any], Any]
Clean = Callable[[str], str]

# These values of a run can contain what people wrote. The others are numbers, ids and the fixed
# words of the provider.
_RUN_TEXTS = frozenset(name for name, value in RUN_VALUES.items() if value.is_text)
_OUTPUTS = frozenset(name for name, value in RUN_VALUES.items() if value.is_output)

_TEXTS = frozenset({"STRING", TEXT})


class Privacy:
    """Returns what may be sent of each text. Worker's thread only; never raises.

    A text is hidden, or it is redacted by each redactor in turn and then cut. If a redactor raises
    or returns no text, the text is lost, never the inference.

    Args:
        redactors: The redactors, in order.
        hide_inputs: Whether input texts are hidden.
        hide_outputs: Whether output texts, tokens, likelihoods and tool calls are hidden.
        max_text_bytes: The maximum size of a text, in bytes of UTF-8; None for any.
        failed: Called for each text on which a redactor failed.
    """

    def __init__(
        self,
        *,
        redactors: Sequence[Callable[[str], Any]] = (),
        hide_inputs: bool = False,
        hide_outputs: bool = False,
        max_text_bytes: int | None = None,
        failed: Callable[[], None],
    ) -> None:
        self._redactors = tuple(redactors)
        self._hide_inputs = hide_inputs
        self._hide_outputs = hide_outputs
        self._max_text_bytes = max_text_bytes
        self._failed = failed
        self._once = LogOnce()

    @classmethod
    def of(cls, settings: RelaySettings, failed: Callable[[], None]) -> Self | None:
        """Return the privacy that the settings ask for, or None when they ask for nothing."""
        if not (
            settings.redact
            or settings.hide_inputs
            or settings.hide_outputs
            or settings.max_text_bytes is not None
        ):
            return None
        return cls(
            redactors=[
                BUILT_IN[redactor] if isinstance(redactor, BuiltInRedactor) else redactor
                for redactor in settings.redact or ()
            ],
            hide_inputs=settings.hide_inputs,
            hide_outputs=settings.hide_outputs,
            max_text_bytes=settings.max_text_bytes,
            failed=failed,
        )

    def input(self, text: str) -> str:
        """Return what may be sent of an input text."""
        return HIDDEN if self._hide_inputs else self.text(text)

    def output(self, text: str) -> str:
        """Return what may be sent of an output text."""
        return HIDDEN if self._hide_outputs else self.text(text)

    def text(self, text: str) -> str:
        """Return what may be sent of any other text."""
        return self._cut(self._redact(text))

    def redacted(self, text: str) -> str:
        """Return what may be sent of a part of a longer text; it is not cut."""
        return self._redact(text)

    def cut(self, text: str) -> str:
        """Return a text that was redacted, cut to the longest that texts may be."""
        return self._cut(text)

    @property
    def hides_inputs(self) -> bool:
        """Whether inputs are hidden."""
        return self._hide_inputs

    @property
    def hides_outputs(self) -> bool:
        """Whether outputs are hidden."""
        return self._hide_outputs

    def may_send_tokens(self, tokens: Sequence[Any], *, output: str, shown: str) -> bool:
        """Return whether tokens, or likelihoods by token, reveal nothing that the output does not.

        A secret can be spread over several tokens. So tokens are sent only with an output that is
        sent whole, and only if the redactors find nothing in the joined tokens.

        Args:
            tokens: Tokens, or the likelihoods of the candidates for each.
            output: The output text.
            shown: The text that is sent for it.
        """
        if shown not in (output, clean_text(output)):
            return False
        return all(text == output or self._redact(text) == text for text in _spelled(tokens))

    def for_application_values(
        self,
        coercers: Mapping[str, Coerce],
        types: Mapping[str, str],
        *,
        output_tokens: str | None,
    ) -> dict[str, Coerce]:
        """Wrap the coercers of attributes for values that the application gives.

        Args:
            coercers: A coercer for each attribute, by name.
            types: The attributes' value types, by name.
            output_tokens: The name of the attribute for the output's tokens, or None.

        Returns:
            New coercers by name, which return only what may be sent; none for hidden attributes.
        """
        return {
            name: self._given(name, types[name], coerce)
            for name, coerce in coercers.items()
            if not self._spells_out_hidden(types[name], is_output=name == output_tokens)
        }

    def ground_truth(
        self, coercers: Mapping[str, Coerce], types: Mapping[str, str]
    ) -> dict[str, Coerce]:
        """Wrap the coercers of ground truth, which the application gives as well."""
        return {name: self._given(name, types[name], each) for name, each in coercers.items()}

    def for_run_values(
        self, coercers: Mapping[str, Coerce], types: Mapping[str, str]
    ) -> dict[str, Coerce]:
        """Wrap the coercers of attributes for values that come from the run itself."""
        return {
            name: self._of_run(name, types[name], coerce) if name in _RUN_TEXTS else coerce
            for name, coerce in coercers.items()
        }

    def _spells_out_hidden(self, kind: str, *, is_output: bool) -> bool:
        if kind == TOKENS and not is_output:
            # A model may register the input's tokens as well, and these may be either.
            return self._hide_inputs or self._hide_outputs
        return kind in (TOKENS, LIKELIHOODS) and self._hide_outputs

    def _given(self, name: str, kind: str, coerce: Coerce) -> Coerce:
        hidden = self._may_quote_hidden(name)
        clean: Clean = _hide if hidden else self.text
        clean_json: Clean = _hide if hidden else self._json

        def text_of(value: Any) -> str:
            text = coerce(value)
            # In JSON, an escape could hide what a redactor looks for.
            return clean_json(text) if isinstance(value, (dict, list, tuple)) else clean(text)

        if kind in _TEXTS:
            return text_of

        def texts_of(value: Any) -> list[str]:
            return [clean(text) for text in coerce(value)]

        if kind == "ARRAY(STRING)":
            return texts_of
        return coerce  # not a text; or tokens, which are checked together with the output

    def _of_run(self, name: str, kind: str, coerce: Coerce) -> Coerce:
        if name not in ("error", "tool_calls") or kind not in _TEXTS:
            return self._given(name, kind, coerce)
        hidden = self._may_quote_hidden(name)
        clean: Clean = _hide if hidden else self._json
        if name == "error":
            clean = _error_type if hidden else self._error

        def text_of(value: Any) -> str:
            return clean(coerce(value))

        return text_of

    def _may_quote_hidden(self, name: str) -> bool:
        if name == "error":
            return self._hide_inputs or self._hide_outputs
        return name in _OUTPUTS and self._hide_outputs

    def _redact(self, text: str) -> str:
        if not self._redactors:
            return text
        found = clean_text(text)  # a NUL within a secret would hide it from the redactors
        try:
            for redactor in self._redactors:
                found = redactor(found)
                if not isinstance(found, str):
                    return self._withhold(f"returned {type(found).__name__}")
        except BaseException as error:  # noqa: BLE001 - a Rust library's panic is not an Exception
            return self._withhold(f"raised {type(error).__name__}")
        return clean_text(found)

    def _withhold(self, failure: str) -> str:
        self._failed()
        if self._once.is_first("redactor"):
            # Without the exception, because its text might quote the secret.
            logger.warning(
                "arthur-relay: a redactor of %s %s; the text is withheld (more of this kind are"
                " counted in stats() only)",
                named("redact"),
                failure,
            )
        return WITHHELD

    def _cut(self, text: str) -> str:
        limit = self._max_text_bytes
        if limit is None or len(text) * 4 <= limit:  # a character has four bytes at most
            return text
        size = len(text.encode("utf-8", "replace"))
        return truncate_text(text, limit, note=f"… [cut by arthur-relay, {size} bytes before]")

    def _json(self, text: str) -> str:
        """Return what may be sent of a JSON text; it stays JSON unless it has to be cut."""
        if not self._redactors:
            return self._cut(text)
        return self._cut(orjson.dumps(self._leaves(orjson.loads(text))).decode())

    def _leaves(self, value: Any) -> Any:
        match value:
            case str():
                return self._redact(value)
            case dict():
                return {self._redact(key): self._leaves(item) for key, item in value.items()}
            case list():
                return [self._leaves(item) for item in value]
            case int() if not isinstance(value, bool):
                digits = str(value)  # it may be a card's number
                redacted = self._redact(digits)
                return value if redacted == digits else redacted
            case _:
                return value

    def _error(self, text: str) -> str:
        """Return what may be sent of an error; see `CUT_ERROR_CHARACTERS`."""
        was_cut = len(text.partition(": ")[2]) >= MAX_ERROR_CHARACTERS
        redacted = self._redact(text)
        if was_cut and self._redactors and redacted != WITHHELD:
            redacted = redacted[:-CUT_ERROR_CHARACTERS] + "…"
        return self._cut(redacted)


def _hide(_text: str) -> str:
    return HIDDEN


def _error_type(text: str) -> str:
    """Return an error's type without its text, which may quote a hidden text."""
    return text.partition(": ")[0]


def _spelled(tokens: Sequence[Any]) -> list[str]:
    """Return the texts that tokens spell, or that the candidates of each spell."""
    if all(isinstance(token, str) for token in tokens):
        return ["".join(tokens)]
    likeliest = [max(candidates, key=candidates.__getitem__, default="") for candidates in tokens]
    return ["".join(likeliest), "\n".join(each for candidates in tokens for each in candidates)]
