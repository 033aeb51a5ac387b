"""Nothing that LangSmith's tracer or OpenInference's instrumentor has is missing in our row."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from .client import Client
from .clients import CLIENTS
from .forms import FORMS, Form
from .not_handed_over import reasons
from .peer_fields import ATTRIBUTES, Peer, peer_field
from .peers import Facts, LangSmith, OpenInference
from .server import Server
from .stage import Stage
from .table import FIELDS, agrees, cases, may_be_there, right_values

CONFIG = {
    "tags": ["tested"],
    "metadata": {"session_id": "session-4711", "user_id": "ada"},
    "run_name": "named",
}
PARTLY = ("output_likelihoods", "time_to_first_token")
"""What the peers have also where it is lost: the last token's likelihood alone, an empty chunk."""

LOST = object()

COMPARED = ("invoke", "stream", "v3")


@pytest.fixture(scope="module")
def openinference() -> Iterator[OpenInference]:
    with OpenInference() as running:
        yield running


@pytest.mark.parametrize("form", [FORMS[name] for name in COMPARED], ids=lambda form: form.name)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_peers_have_nothing_more(
    client: Client, form: Form, server: Server, openinference: OpenInference
) -> None:
    missing = [
        f"{answer}: {problem}"
        for found_client, found_form, answer in cases()
        if (found_client, found_form) == (client, form)
        for problem in _compare(client, form, answer, server, openinference)
    ]
    assert not missing, "\n".join(missing)


def test_each_line_of_the_table_says_where_a_value_is_or_why_it_is_not() -> None:
    from .peer_fields import PEER_FIELDS

    assert all(each.field or each.reason for each in PEER_FIELDS)
    named = {each.field for each in PEER_FIELDS} - {None}
    assert named <= FIELDS.keys() | ATTRIBUTES.keys()


def _compare(
    client: Client, form: Form, answer: str, server: Server, openinference: OpenInference
) -> Iterator[str]:
    langsmith = LangSmith()
    openinference.clear()
    model = client.model(server.at(client.wire), answer)
    with Stage(**ATTRIBUTES) as stage:
        handlers = [*stage.config["callbacks"], langsmith.handler]
        # Whatever the provider's package raises: `test_table.py` looks at it.
        with contextlib.suppress(Exception):
            form.call(model, answer, {**CONFIG, "callbacks": handlers})
        row = stage.row(unmatched_events=int(client.ends_twice))
    right = right_values(client, form, answer)
    allowed = may_be_there(client, form, answer)
    for peer, facts in (
        (Peer.LANGSMITH, langsmith.facts()),
        (Peer.OPENINFERENCE, openinference.facts()),
    ):
        lost = {name for name in PARTLY if any(reasons(client, form, answer, name))}
        yield from _missing(peer, facts, row, {**right, **allowed, **dict.fromkeys(lost, LOST)})


def _missing(peer: Peer, facts: Facts, row: dict[str, Any], right: dict[str, Any]) -> Iterator[str]:
    """Yield what a peer has and our row has not, or has otherwise without being right."""
    for path, value in facts.items():
        entry = peer_field(peer, path)
        if entry is None:
            yield f"{peer} has {path} = {str(value)[:60]!r}, of which the table says nothing"
            continue
        name = entry.field
        if name is None or (name in FIELDS and right.get(name, LOST) is LOST):
            continue  # a reason says why, or the answer has no such thing: an empty first chunk
        found = row.get(name)
        if found is None or (found == "" and right.get(name) != ""):
            yield f"{peer} has {path} = {str(value)[:60]!r}, the row has no {name}"
        elif entry.same and found != value and not _is_right(name, found, right):
            yield f"{peer} has {path} = {str(value)[:60]!r}, the row's {name} is {found!r}"


def _is_right(name: str, found: Any, right: dict[str, Any]) -> bool:
    return name in right and agrees(name, found, right[name])
