"""What is shown to people has no credentials of addresses."""

from __future__ import annotations

import pytest

from arthur_relay.system.terminal import without_credentials


@pytest.mark.one_python
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ada:secret@arthur.example/x", "https://***@arthur.example/x"),
        ("tls://ada:se/cr@et@h:1,tls://token@h:2", "tls://***@h:1,tls://***@h:2"),
        ("ada:secret@arthur.example", "***@arthur.example"),
        ("can't use 'ada:secret@h' now", "can't use '***@h' now"),
        ("https://arthur.example/~ada", "https://arthur.example/~ada"),
        ("ada@arthur.example", "ada@arthur.example"),
        ("unix:///run/relay.sock", "unix:///run/relay.sock"),
        ("127.0.0.1:8808", "127.0.0.1:8808"),
    ],
)
def test_an_address_is_shown_without_them(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
