"""The token: when it is refreshed, and one login for all who ask at once."""

from __future__ import annotations

import base64
import json
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from arthur_relay.destinations.scope.auth import Token, TokenSource, refresh_time
from tests.clock import Clock


def _jwt(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"header.{payload}.signature"


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (_jwt(exp=4600.0), 4300.0),  # five minutes before, as the SDK
        (_jwt(exp=1100.0), 1050.0),  # half of a life that is shorter than that
        (_jwt(exp=500.0), 1000.0),  # expired already: at once, and not without end
        (_jwt(sub="x"), None),
        (_jwt(exp="soon"), None),
        ("not-a-jwt", None),
        ("a.b.c", None),
        ("a.!.c", None),
    ],
)
def test_when_a_token_is_refreshed(token: str, expected: float | None) -> None:
    assert refresh_time(token, now=1000.0) == expected


def test_concurrent_requests_log_in_once() -> None:
    logins = []
    clock = Clock()

    class Login:
        async def log_in(self) -> str:
            logins.append(1)
            await anyio.lowlevel.checkpoint()
            return _jwt(exp=clock.utc_now().timestamp() + 3600)

    async def test() -> None:
        source = TokenSource(login=Login(), api_key=None, clock=clock)
        source.enter()
        tokens: list[Token] = []

        async def ask() -> None:
            tokens.append(await source.token())

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ask)
        assert len(logins) == 1
        source.refused(tokens[0])
        await source.token()
        source.refused(tokens[0])  # an old one that another request was still using
        await source.token()
        assert len(logins) == 2
        clock.now += 3500
        await source.token()
        assert len(logins) == 3
        assert "exp" not in repr(tokens[0])

    anyio.run(test)


def test_an_api_key_is_never_replaced() -> None:
    async def test() -> None:
        source = TokenSource(login=None, api_key="key", clock=Clock())
        source.enter()
        token = await source.token()
        source.refused(token)
        assert not source.can_log_in
        assert (await source.token()).value == "key"

    anyio.run(test)
