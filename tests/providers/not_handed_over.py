"""What LangChain, or a client's package, does not hand over to callbacks, and where it gets lost.

The tests hold each entry against what LangChain does hand over: when a newer version of a package
hands a value over, its entry fails and has to go.
"""

from __future__ import annotations

from collections.abc import Iterator

from .client import Client
from .forms import Form
from .loss import NotHandedOver
from .native_not_handed_over import NATIVE_NOT_HANDED_OVER

NOT_HANDED_OVER: tuple[NotHandedOver, ...] = (*NATIVE_NOT_HANDED_OVER,)


def reasons(client: Client, form: Form, answer: str, field: str) -> Iterator[NotHandedOver]:
    """Yield the entries that a cell is of."""
    for entry in NOT_HANDED_OVER:
        if entry.is_about(client, form, answer, field):
            yield entry
