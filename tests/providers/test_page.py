"""The page is what the table says, and the table says nothing that is not needed."""

from __future__ import annotations

import pytest

from .clients import CLIENTS
from .environment import versions
from .loss import NotHandedOver
from .not_handed_over import NOT_HANDED_OVER
from .page import PAGE, page
from .table import cases, right_values

pytestmark = pytest.mark.one_python


def test_the_page_is_the_table() -> None:
    command = "python -m tests.providers.page > docs/providers.md"
    assert PAGE.read_text(encoding="utf-8") == page(), f"make it anew: {command}"


@pytest.mark.parametrize("entry", NOT_HANDED_OVER, ids=lambda entry: entry.place.split(", ")[0])
def test_an_entry_is_about_something(entry: NotHandedOver) -> None:
    about = {
        (client.name if entry.clients else None, field)
        for client, form, answer in cases()
        for field in right_values(client, form, answer)
        if entry.is_about(client, form, answer, field)
    }
    wanted = {(name, field) for name in entry.clients or (None,) for field in entry.fields}
    assert about == wanted


def test_each_client_has_one_name_and_a_pinned_package() -> None:
    assert len({client.name for client in CLIENTS}) == len(CLIENTS)
    assert {client.package for client in CLIENTS} <= set(versions())
