"""What LangChain, or a client's package, does not hand over to callbacks, and where it gets lost.

The tests hold each entry against what LangChain does hand over: when a newer version of a package
hands a value over, its entry fails and has to go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .client import Client
from .forms import FORMS, Form

V3 = ("v3", "av3")
STREAMED = tuple(form.name for form in FORMS.values() if form.streamed)


@dataclass(frozen=True, kw_only=True)
class NotHandedOver:
    """Values that get lost before a callback could see them.

    Attributes:
        fields: The row's fields.
        package: The distribution that loses them.
        place: Where in its source: module, class, function.
        why: What it does there.
        clients: Names of the clients; None for all.
        forms: Names of the ways to call; None for all.
        answers: Names of the answers; None for all.
    """

    fields: tuple[str, ...]
    package: str
    place: str
    why: str
    clients: tuple[str, ...] | None = None
    forms: tuple[str, ...] | None = None
    answers: tuple[str, ...] | None = None

    def is_about(self, client: Client, form: Form, answer: str, field: str) -> bool:
        """Return whether a cell of the table is one of these."""
        return (
            field in self.fields
            and (self.clients is None or client.name in self.clients)
            and (self.forms is None or form.name in self.forms)
            and (self.answers is None or answer in self.answers)
        )


NOT_HANDED_OVER: tuple[NotHandedOver, ...] = ()


def reasons(client: Client, form: Form, answer: str, field: str) -> Iterator[NotHandedOver]:
    """Yield the entries that a cell is of."""
    for entry in NOT_HANDED_OVER:
        if entry.is_about(client, form, answer, field):
            yield entry
