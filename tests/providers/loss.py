"""A value that LangChain, or a client's package, loses before a callback could see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .client import Client
from .forms import FORMS, Form

V3 = ("v3", "av3")
STREAMED = tuple(form.name for form in FORMS.values() if form.streamed)
WHOLE = tuple(form.name for form in FORMS.values() if not form.streamed)


@dataclass(frozen=True, kw_only=True)
class NotHandedOver:
    """Values that get lost before a callback could see them.

    Attributes:
        fields: The row's fields.
        package: The distribution that loses them.
        place: Where in its source: names with their modules, with a comma between several.
        why: What it does there.
        clients: Names of the clients; None for all.
        forms: Names of the ways to call; None for all.
        answers: Names of the answers; None for all.
        instead: By field, what stands in the row instead; nothing does for other fields.
    """

    fields: tuple[str, ...]
    package: str
    place: str
    why: str
    clients: tuple[str, ...] | None = None
    forms: tuple[str, ...] | None = None
    answers: tuple[str, ...] | None = None
    instead: Mapping[str, Any] = field(default_factory=dict)

    def is_about(self, client: Client, form: Form, answer: str, name: str) -> bool:
        """Return whether a cell of the table is one of these."""
        return (
            (name in self.fields or name in self.instead)
            and (self.clients is None or client.name in self.clients)
            and (self.forms is None or form.name in self.forms)
            and (self.answers is None or answer in self.answers)
        )
