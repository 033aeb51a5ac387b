"""Who may send: tokens, sessions, models, peers of the socket. Without a server."""

from __future__ import annotations

import base64
import json
import os
import socket
from typing import TYPE_CHECKING

import pytest

from arthur_relay.daemon.auth import (
    SESSION_SECONDS,
    Authenticator,
    Denied,
    Endpoint,
    Peer,
    Principal,
    Token,
    read_tokens,
)
from arthur_relay.errors import SettingsError
from arthur_relay.system.operating_system import peer_uid
from tests.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = "one-0123456789abcdef", "two-0123456789abcdef"
TCP, SOCKET = Peer(Endpoint.TCP), Peer(Endpoint.SOCKET, 1000)


def access(
    *tokens: Token, uids: frozenset[int] | None = None, clock: Clock | None = None
) -> Authenticator:
    return Authenticator(tokens or None, allowed_uids=uids, clock=clock or Clock())


ALPHA = Token(Principal("alpha"), ONE)
BETA = Token(Principal("beta", frozenset({"m"})), TWO)


def status(found: Principal | Denied) -> int | str:
    return found.status if isinstance(found, Denied) else found.name


def test_a_token_lets_in_by_tcp() -> None:
    guard = access(ALPHA, BETA)
    assert guard.admit(TCP, ONE) == Principal("alpha")
    assert status(guard.admit(TCP, f"Bearer {TWO}")) == "beta"
    for wrong in (None, "", "alpha", ONE[:-1], ONE + "x", "ä", "a.b.c", f"Basic {ONE}"):
        assert status(guard.admit(TCP, wrong)) == 401


def test_models_of_a_token() -> None:
    found = access(ALPHA, BETA).admit(TCP, TWO)
    assert isinstance(found, Principal)
    assert (found.allows("m"), found.allows("n")) == (True, False)
    assert Principal("alpha").allows("anything")


def test_a_login_is_a_tokens_name_and_the_token() -> None:
    clock = Clock()
    guard = access(ALPHA, BETA, clock=clock)
    session = guard.log_in(TCP, "beta", TWO)
    assert session is not None
    assert guard.admit(TCP, session) == BETA.principal
    claims = session.split(".")[1]
    told = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert told["exp"] == clock.utc_now().timestamp() + SESSION_SECONDS, (
        "clients log in again before that"
    )
    for name, secret in (("alpha", TWO), ("beta", "x"), ("", TWO), (None, TWO), ("beta", 7)):
        assert guard.log_in(TCP, name, secret) is None
    clock.now += SESSION_SECONDS
    assert status(guard.admit(TCP, session)) == 401


def test_a_session_ends_with_its_token_and_outlives_a_restart() -> None:
    session = access(ALPHA, BETA).log_in(TCP, "beta", TWO)
    assert access(BETA).admit(TCP, session) == BETA.principal
    assert status(access(ALPHA).admit(TCP, session)) == 401
    assert status(access(Token(Principal("beta"), TWO + "new")).admit(TCP, session)) == 401


def test_sessions_can_not_be_made_up() -> None:
    guard = access(ALPHA)
    session = guard.log_in(TCP, "alpha", ONE)
    assert session is not None
    head, claims, signature = session.split(".")
    assert status(guard.admit(TCP, f"{head}.{claims[:-2]}xx.{signature}")) == 401
    assert status(guard.admit(TCP, f"{head}.{claims}.")) == 401


def test_on_the_socket_any_key_works_and_none() -> None:
    guard = access(ALPHA)
    for key in (None, "whatever", ONE):
        assert status(guard.admit(SOCKET, key)) == "uid 1000"
    assert guard.log_in(SOCKET, "anyone", "anything") is not None


def test_the_users_who_may_use_the_socket() -> None:
    guard = access(uids=frozenset({7}))
    assert status(guard.admit(Peer(Endpoint.SOCKET, 7), None)) == "uid 7"
    assert status(guard.admit(Peer(Endpoint.SOCKET, 8), None)) == 403
    assert status(guard.admit(Peer(Endpoint.SOCKET, None), None)) == 403
    assert status(guard.admit(TCP, None)) == "anyone", "it is for the socket only"


def test_who_is_at_the_other_end_of_a_socket() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_uid(one) == os.getuid()


def test_a_tokens_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# who\n\n alpha : {ONE} \nbeta:{TWO}: m , n\n")
    assert read_tokens(path) == (ALPHA, Token(Principal("beta", frozenset({"m", "n"})), TWO))
    assert ONE not in repr(read_tokens(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no token"),
        ("alpha", "line 1: write `name:token`"),
        ("a:short", "16 characters or more"),
        (f":{ONE}", "write `name:token`"),
        (f"a:{ONE}:", "no model is named"),
        (f"a:{ONE}\nb:{ONE}", "a token twice"),
        (f"a:{ONE}ä", "printable ASCII"),
    ],
)
def test_a_tokens_file_that_is_no_use(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message) as error:
        read_tokens(path)
    assert ONE not in str(error.value)


def test_a_tokens_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be read: No such file"):
        read_tokens(tmp_path / "nowhere")
