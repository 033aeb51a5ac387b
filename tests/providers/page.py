"""Write the table down: `python -m tests.providers.page > docs/providers.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .answers import ANSWERS
from .client import Client
from .clients import CLIENTS
from .environment import versions
from .forms import Form
from .loss import NotHandedOver
from .not_handed_over import reasons
from .peer_fields import section
from .spans import span_section
from .table import FIELDS, cases, right_values

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"

RIGHT = "✓"

INTRODUCTION = """\
# What the row in Arthur says, provider by provider

For developers who want to know what arrives in Arthur from the provider's package that they use,
and what LangChain loses on the way. [Attributes](attributes.md) says what each field means.

This page is made from the table in [tests/providers](../tests/providers/__init__.py), which calls
LangChain's real classes against a local server that speaks each provider's wire format, and holds
each row against what the model answered. Only the reasons below the tables are written by hand.

- ✓ — the row holds the right value: what the model said, in the provider's own words.
- [1] — LangChain, or the class's package, loses the value before any callback could see it; the
  number leads to the package and the place in its source. The row lacks the value, and has no wrong
  one, unless the note says so: where the name of the model that answered is lost, the row has the
  name that was asked for.
- An empty cell — the answer has no such value, and the row has none.

There is no other kind of cell. When a newer version of a package hands a value over, the test that
says it does not fails.

The ways to call: `invoke`, `ainvoke`; `stream`, `astream`, read to their end; `v3`, `av3`, which
are `stream_events` and `astream_events` with `version="v3"`; `left`, `aleft`, streams whose
consumer goes away after the last chunk, before the stream says that it has ended. Their outcome is
`ok`.

The answers: *text* has three pieces and a prompt that was cached in part; *likelihoods* has log
probabilities, with two candidates for each token where the provider has candidates; *tool call* and
*broken tool call*, whose arguments are not JSON; *reasoning* before a text; *refused* is a refusal
of the provider, or a text where it has none; *cut at the limit* of tokens; *connection cut* in the
middle of the answer; *provider error* is status 500. A few also have *prompt blocked*, an answer
without a model, and *web search*, a tool that the provider runs itself.

In these tests, Arthur's model has registered all fields; one that is not registered is not sent.
The time to the first token must be set by the first chunk with content, and by none before it.
"""


def page() -> str:
    """Return the whole page."""
    pinned = versions()
    lines = [INTRODUCTION, "## Versions", ""]
    packages = sorted({"langchain-core", *(client.package for client in CLIENTS)})
    lines += [f"- {package} {pinned[package]}" for package in packages]
    lines.append("")
    for client in CLIENTS:
        lines += _section(client)
    lines += span_section()
    lines += section()
    return "\n".join(lines).rstrip() + "\n"


def _section(client: Client) -> Iterator[str]:
    yield f"## {client.name} ({client.package})"
    yield ""
    notes: list[NotHandedOver] = []
    rows = list(_rows(client, notes))
    fields = [name for name in FIELDS if any(name in cells for _, cells in rows)]
    yield _line(["answer", "called by", *(f"`{name}`" for name in fields)])
    yield _line(["---"] * (len(fields) + 2))
    for (answer, forms), cells in rows:
        yield _line([answer, forms, *(cells.get(name, "") for name in fields)])
    yield ""
    for number, note in enumerate(notes, start=1):
        places = ", ".join(f"`{place}`" for place in note.place.split(", "))
        yield f"[{number}] {note.package}, {places}: {_began_small(note.why)}{_instead(note)}"
        yield ""


def _rows(
    client: Client, notes: list[NotHandedOver]
) -> Iterator[tuple[tuple[str, str], dict[str, str]]]:
    """Yield a client's rows: those of an answer that agree are one."""
    for answer in ANSWERS:
        merged: list[tuple[list[str], dict[str, str]]] = []
        for each, form, name in cases():
            if each is client and name == answer:
                cells = _cells(client, form, answer, notes)
                for forms, known in merged:
                    if known == cells:
                        forms.append(form.name)
                        break
                else:
                    merged.append(([form.name], cells))
        for forms, cells in merged:
            yield (answer, ", ".join(forms)), cells


def _cells(client: Client, form: Form, answer: str, notes: list[NotHandedOver]) -> dict[str, str]:
    cells = {}
    for field in right_values(client, form, answer):
        found = list(reasons(client, form, answer, field))
        notes += [note for note in found if note not in notes]
        numbers = sorted(notes.index(note) + 1 for note in found)
        cells[field] = ", ".join(f"[{number}]" for number in numbers) or RIGHT
    return cells


def _instead(note: NotHandedOver) -> str:
    """Return what rows say instead, where that is a text."""
    said = [f"`{name}` {value!r}" for name, value in note.instead.items() if type(value) is str]
    return f" Rows say {', '.join(said)}." if said else ""


def _began_small(sentence: str) -> str:
    """Return a sentence as the rest of another."""
    return sentence[0].lower() + sentence[1:]


def _line(cells: Iterable[str] | Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(page())
