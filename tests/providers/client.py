"""A real client class of LangChain, and what it is tried with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .answers import ANSWERS, OF_SOME
from .forms import FORMS
from .wire import Wire

ASKED_FOR = "asked-model"
"""The model that clients ask for; another one answers (`wire.ANSWERED_BY`)."""

KEY = "no-key"


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client class.

    Attributes:
        name: The class's, with what it speaks when it speaks more than one format.
        package: The distribution that it is of.
        make: Makes one that speaks to a URL, which has no slash at its end; more arguments are the
            class's own.
        wire: The format that it speaks.
        provider: What LangChain calls the provider (`ls_provider`).
        answers: Names of the answers that the format has.
        forms: Names of the ways to call it.
        chat: Whether it is a chat model; else it is given a prompt and answers with a text.
        asked_for: The model's name as LangChain tells it of the request (`ls_model_name`).
        options: More arguments of `make` for some answers.
        streams_inside: Whether it asks for a stream also when it is called for a whole answer.
        ends_twice: Whether its package tells some ends of a run itself, before LangChain does.
        raises: Ways to call by the names of answers for which the class itself raises an error.
    """

    name: str
    package: str
    make: Callable[..., Any]
    wire: Wire
    provider: str
    answers: tuple[str, ...] = field(default_factory=lambda: but())  # noqa: PLW0108 - it comes below
    forms: tuple[str, ...] = tuple(FORMS)
    chat: bool = True
    asked_for: str | None = ASKED_FOR
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    streams_inside: bool = False
    ends_twice: bool = False
    raises: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def model(self, url: str, answer: str) -> Any:
        """Return a model that asks for what an answer needs."""
        return self.make(url, **self.options.get(answer, {}))


def but(*names: str) -> tuple[str, ...]:
    """Return all answers that most formats have, but some."""
    return tuple(name for name in ANSWERS if name not in names and name not in OF_SOME)


LIKELIHOODS: Mapping[str, Mapping[str, Any]] = {
    "likelihoods": {"logprobs": True, "top_logprobs": 2}
}
