"""How a handler comes to be: credentials, the model, and one clear error for what is wrong."""

from __future__ import annotations

import gc
import logging
import threading
from dataclasses import replace
from typing import Any

import anyio
import pytest

from arthur_relay import (
    ArthurCallbackHandler,
    ConfigurationError,
    CredentialsError,
    ModelError,
    Relay,
    RelaySettings,
    UnreachableError,
)
from arthur_relay.credentials import resolve_credentials
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.sandbox import ArthurSandbox, attribute
from tests.end_to_end.conftest import QUICK, capture, logins
from tests.waiting import wait_for


def test_login_and_password(sandbox: ArthurSandbox, settings: RelaySettings) -> None:
    handler = ArthurCallbackHandler.from_credentials(
        sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
    )
    assert handler.model_id == sandbox.model_id
    assert logins(sandbox) == 1


def test_the_key_of_the_environment(
    sandbox: ArthurSandbox, settings: RelaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_API_KEY", sandbox.api_key)
    ArthurCallbackHandler.from_credentials(
        sandbox.model_id, arthur_url=sandbox.url, settings=settings
    )
    assert logins(sandbox) == 0
    assert sandbox.requests[-1].headers["authorization"] == sandbox.api_key
    assert sandbox.requests[-1].headers["arthur-organization-id"] == "sandbox-org"


def test_everything_from_the_environment(
    sandbox: ArthurSandbox, settings: RelaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    ArthurCallbackHandler.from_env(settings=settings)
    assert logins(sandbox) == 0  # a key wins over a login, as in the SDK
    monkeypatch.delenv("ARTHUR_API_KEY")
    ArthurCallbackHandler.from_env(settings=settings)
    assert logins(sandbox) == 1


def test_no_credentials_say_what_to_set(sandbox: ArthurSandbox) -> None:
    with pytest.raises(ValueError, match=r"arthur_login.*ARTHUR_API_KEY"):
        ArthurCallbackHandler.from_credentials(sandbox.model_id, arthur_url=sandbox.url)


def test_no_model_id_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTHUR_API_KEY", "key")
    with pytest.raises(ValueError, match="ARTHUR_MODEL_ID is not set"):
        ArthurCallbackHandler.from_env()


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "the password": ({"arthur_password": "wrong"}, CredentialsError, "refused the login admin"),
    "the login": ({"arthur_login": "nobody"}, CredentialsError, "refused the login nobody"),
    "the model id": ({"model_id": "no-such-model"}, ModelError, "no model with id no-such-model"),
    "a blank model id": ({"model_id": "  "}, ConfigurationError, "model's id is empty"),
    "a model id that is a number": ({"model_id": 123}, ConfigurationError, "not of type int"),
    "a model id that is a list": ({"model_id": ["x"]}, ConfigurationError, "not of type list"),
    "a URL that is a number": ({"arthur_url": 5}, ConfigurationError, "URL must be a text"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named(what: str, sandbox: ArthurSandbox, settings: RelaySettings) -> None:
    changes, error, message = WRONG[what]
    arguments = {
        "model_id": sandbox.model_id,
        "arthur_url": sandbox.url,
        "arthur_login": sandbox.login,
        "arthur_password": sandbox.password,
        **changes,
    }
    for _ in range(2):  # also the second time, when the relay is there already
        with pytest.raises(error, match=message) as raised:
            ArthurCallbackHandler.from_credentials(**arguments, settings=settings)
        assert isinstance(raised.value, ValueError)
        assert "wrong" not in str(raised.value)  # no secret in a message


def test_a_wrong_key_is_named_and_not_shown(
    sandbox: ArthurSandbox, settings: RelaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_API_KEY", "not-the-key")
    with pytest.raises(CredentialsError, match="ARTHUR_API_KEY") as raised:
        ArthurCallbackHandler.from_credentials(
            sandbox.model_id, arthur_url=sandbox.url, settings=settings
        )
    assert "not-the-key" not in str(raised.value)


@pytest.mark.parametrize(("missing", "stage"), [("input", "PIPELINE_INPUT"), ("output", "PRED")])
def test_a_model_that_is_not_an_llm(
    missing: str, stage: str, sandbox: ArthurSandbox, settings: RelaySettings
) -> None:
    attributes = [
        attribute("number_in", "FLOAT", "PIPELINE_INPUT"),
        attribute("number_out", "FLOAT", "PREDICTED_VALUE"),
    ]
    if missing == "output":
        attributes.append(attribute("text_in", "UNSTRUCTURED_TEXT", "PIPELINE_INPUT"))
    model_id = sandbox.add_model(attributes)
    with pytest.raises(ModelError, match=f"no text {missing}.*{stage}"):
        ArthurCallbackHandler.from_credentials(
            model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
        )


URLS = {
    "app.arthur.ai": "has no scheme: write it like 'https://app.arthur.ai'",
    "unix:/run/relay.sock": "does not name a socket: .*three slashes",
    "unix:relay.sock": "does not name a socket: .*three slashes",
    "ftp://app.arthur.ai": "can't be used",
    "https://": "can't be used",
    "http://app.arthur.ai": "plain HTTP.*ARTHUR_RELAY_ALLOW_INSECURE",
    "https://user:secret@app.arthur.ai": "must not have",
    "ftp://user:secret@app.arthur.ai": "must not have",
    "user:secret@app.arthur.ai": "must not have",
    "https://app.arthur.ai:port": "can't be used",
    "https://app.arthur.ai:99999": "can't be used",
    "https://app.arthur.ai:0": "can't be used",
    "https://app arthur.ai": "white space",
    "http://[::1": "can't be used",
    "https://app.arthur.ai?key=secret": "must not have",
}


@pytest.mark.parametrize("url", URLS)
def test_an_url_that_can_not_be_used(url: str) -> None:
    with pytest.raises(ConfigurationError, match=URLS[url]) as raised:
        ArthurCallbackHandler.from_credentials("m", url, "login", "password")
    assert "secret" not in str(raised.value)


def test_unreachable_arthur_is_told_once_and_inferences_wait(
    sandbox: ArthurSandbox, settings: RelaySettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="arthur_relay")
    sandbox.go_away()
    handlers = [
        ArthurCallbackHandler.from_credentials(
            sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
        )
        for _ in range(3)
    ]
    capture_through(handlers)
    assert handlers[0].flush(0.1).pending == 3
    assert handlers[0].relay.health().status == "failing"
    sandbox.come_back()
    assert handlers[0].flush(30).delivered == 3
    texts = [record.getMessage() for record in caplog.records]
    (told,) = [text for text in texts if "is not known yet" in text]
    assert f"Arthur can't be reached at {sandbox.url}: the connection was refused" in told


def capture_through(handlers: list[ArthurCallbackHandler]) -> None:
    from uuid import uuid4

    from langchain_core.outputs import Generation, LLMResult

    for handler in handlers:
        run_id = uuid4()
        handler.on_llm_start({}, ["prompt"], run_id=run_id)
        handler.on_llm_end(LLMResult(generations=[[Generation(text="answer")]]), run_id=run_id)


def test_a_hanging_arthur_does_not_hold_the_constructor_for_long(
    sandbox: ArthurSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.faults.hang(routes=("login",))
    settings = RelaySettings(**{**QUICK, "connect_timeout_seconds": 0.05})
    handler = ArthurCallbackHandler.from_credentials(
        sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
    )
    assert "has not answered within 0.05 s" in caplog.text
    sandbox.faults.reset()
    capture_through([handler])
    assert handler.flush(30).pending == 0


def test_lazy_asks_nothing_on_the_callers_path(sandbox: ArthurSandbox) -> None:
    settings = RelaySettings(**{**QUICK, "connect": "lazy"})
    handler = ArthurCallbackHandler.from_credentials(
        sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
    )
    assert sandbox.requests == []
    capture_through([handler])
    assert handler.flush(30).delivered == 1


def test_handlers_share_one_relay_and_one_thread(
    sandbox: ArthurSandbox, settings: RelaySettings
) -> None:
    def make() -> ArthurCallbackHandler:
        return ArthurCallbackHandler.from_credentials(
            sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
        )

    first = make()
    threads = set(threading.enumerate())
    others = [make() for _ in range(200)]
    assert {id(handler.relay) for handler in others} == {id(first.relay)}
    assert set(threading.enumerate()) <= threads  # those of earlier tests may end meanwhile
    assert logins(sandbox) == 1
    del others
    gc.collect()
    capture_through([first])
    assert first.close().delivered == 1
    assert first.relay.health().status == "ok"  # it goes on for others
    assert make().relay is first.relay
    first.relay.close()
    assert make().relay is not first.relay  # until it is closed itself


def test_handlers_for_each_request_lose_nothing(
    sandbox: ArthurSandbox, settings: RelaySettings
) -> None:
    def serve(requests: int) -> None:
        for _ in range(requests):
            with ArthurCallbackHandler.from_credentials(
                sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
            ) as handler:
                capture_through([handler])

    threads = [threading.Thread(target=serve, args=(20,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sandbox.inferences) == 80
    assert logins(sandbox) == 1


def test_refused_credentials_leave_no_thread_behind(
    sandbox: ArthurSandbox, settings: RelaySettings
) -> None:
    before = set(threading.enumerate())
    for number in range(5):
        with pytest.raises(CredentialsError):
            ArthurCallbackHandler.from_credentials(
                sandbox.model_id, sandbox.url, "nobody", f"wrong-{number}", settings=settings
            )
    new = set(threading.enumerate()) - before
    assert not [thread for thread in new if thread.name == "arthur-relay"]


def test_another_model_shares_the_relay_and_not_the_batch(
    sandbox: ArthurSandbox, settings: RelaySettings
) -> None:
    other = sandbox.add_model()
    arguments = (sandbox.url, sandbox.login, sandbox.password)
    first = ArthurCallbackHandler.from_credentials(sandbox.model_id, *arguments, settings=settings)
    second = ArthurCallbackHandler.from_credentials(other, *arguments, settings=settings)
    assert first.relay is second.relay
    capture_through([first, second])
    first.flush(30)
    assert sorted(i["model_id"] for i in sandbox.inferences) == sorted([sandbox.model_id, other])


def test_a_relay_of_ones_own_stays_open_when_a_handler_closes(
    sandbox: ArthurSandbox, settings: RelaySettings
) -> None:
    with Relay.from_credentials(
        sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
    ) as relay:
        handler = ArthurCallbackHandler(relay=relay)
        handler.close()
        capture(relay, "a")
        assert relay.flush(30).delivered == 1


def test_a_handler_needs_a_relay_or_a_model() -> None:
    with pytest.raises(ConfigurationError, match="either an arthurai.ArthurModel or relay"):
        ArthurCallbackHandler()
    with pytest.raises(ConfigurationError, match="not an arthurai.ArthurModel"):
        ArthurCallbackHandler(object())


def test_a_relay_without_a_model_asks_for_one(
    sandbox: ArthurSandbox, settings: RelaySettings
) -> None:
    with (
        Relay.from_credentials(
            None, sandbox.url, sandbox.login, sandbox.password, settings=settings
        ) as relay,
        pytest.raises(ConfigurationError, match="has no model to log to"),
    ):
        ArthurCallbackHandler(relay=relay)


@pytest.mark.parametrize(
    ("organizations", "header"), [(["theirs"], "theirs"), ([], None), (True, "sandbox-org")]
)
def test_users_of_an_outside_identity_provider(
    organizations: bool | list[str], header: str | None, settings: RelaySettings
) -> None:
    with ArthurSandbox(outside_identity_provider=organizations) as sandbox:
        ArthurCallbackHandler.from_credentials(
            sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
        )
        model_requests = [r for r in sandbox.requests if "/models/" in r.path]
        assert model_requests[-1].headers.get("arthur-organization-id") == header


def test_several_organizations_ask_for_a_choice(
    settings: RelaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ArthurSandbox(outside_identity_provider=["one", "two"]) as sandbox:
        arguments = (sandbox.model_id, sandbox.url, sandbox.login, sandbox.password)
        with pytest.raises(CredentialsError, match=r"one, two.*ARTHUR_ORGANIZATION_ID"):
            ArthurCallbackHandler.from_credentials(*arguments, settings=settings)
        monkeypatch.setenv("ARTHUR_ORGANIZATION_ID", "two")
        ArthurCallbackHandler.from_credentials(*arguments, settings=settings)


def test_an_organization_that_can_not_be_asked_for_now_is_asked_for_again(
    sandbox: ArthurSandbox, settings: RelaySettings
) -> None:
    for status in (403, 401):  # of `/users/me`, and then of what is asked instead
        sandbox.faults.status(status, routes=("users",))
    relay = Relay.from_credentials(
        sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
    )
    relay.connect(sandbox.model_id)
    assert "arthur-organization-id" not in sandbox.requests[-1].headers
    capture(relay, "a")
    assert relay.flush(30).delivered == 1
    assert sandbox.requests[-1].headers["arthur-organization-id"]
    relay.close()


def test_an_address_that_is_not_arthurs(settings: RelaySettings, sandbox: ArthurSandbox) -> None:
    sandbox.faults.not_json(status=200, times=None, routes=("users",))
    handler = ArthurCallbackHandler.from_credentials(
        sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
    )
    detail = handler.relay.health().detail
    assert "not JSON" in detail
    assert "text/html" in detail
    assert "may answer in Arthur's place" in detail
    sandbox.faults.reset()


@pytest.mark.parametrize(
    ("route", "told"),
    [("login", "gave no token: it answered 200 with text/html"), ("models", "200 with text/html")],
)
def test_a_page_in_place_of_a_login_or_a_model_is_no_refusal(
    route: str, told: str, sandbox: ArthurSandbox, settings: RelaySettings
) -> None:
    sandbox.faults.not_json(status=200, times=None, routes=(route,))
    relay = Relay.from_credentials(
        sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
    )
    capture(relay, "a")
    wait_for(lambda: told in relay.health().detail, 30)
    assert relay.health().status == "failing"
    assert relay.stats().pending == 1
    sandbox.faults.reset()
    assert relay.flush(30).delivered == 1
    relay.close()


@pytest.mark.parametrize("body", ['{"status": "ok"}', "[]", "null", "<html></html>", ""])
def test_what_is_no_model_rejects_no_rows(
    body: str, sandbox: ArthurSandbox, settings: RelaySettings
) -> None:
    sandbox.faults.not_json(status=200, times=3, routes=("models",))
    sandbox.faults.active[0].body = body
    sandbox.faults.active[0].headers = {"Content-Type": "application/json"}
    relay = Relay.from_credentials(
        sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
    )
    capture(relay, "a")
    assert relay.flush(30).delivered == 1
    relay.close()


def test_access_is_not_seen_in_a_page(sandbox: ArthurSandbox, settings: RelaySettings) -> None:
    sandbox.faults.not_json(status=200, times=None, routes=("users",))
    credentials = resolve_credentials(
        url=sandbox.url, login=sandbox.login, password=sandbox.password, allow_insecure=False
    )
    credentials = replace(credentials, organization_id="sandbox-org")

    async def ask() -> None:
        async with ScopeDestination.of(credentials, settings) as arthur:
            with pytest.raises(UnreachableError, match="not JSON"):
                await arthur.check_access()

    anyio.run(ask)


@pytest.mark.parametrize("route", ["login", "users"])
def test_a_refusal_that_will_not_pass_is_told_once_and_not_asked_again(
    route: str,
    sandbox: ArthurSandbox,
    settings: RelaySettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sandbox.faults.status(404, times=None, routes=(route,))
    relay = Relay.from_credentials(
        sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
    )
    with pytest.raises(CredentialsError, match=r"answered 404.*make sure .* address of Arthur"):
        relay.connect(sandbox.model_id)
    asked = len(sandbox.requests)
    capture(relay, "a", "b")
    assert relay.flush(30).rejected == 2
    assert dict(relay.stats().rejected_reasons) == {"credentials refused": 2}
    assert len(sandbox.requests) == asked
    assert "credentials refused" in relay.health().detail
    texts = [record.getMessage() for record in caplog.records]
    assert sum("answered 404" in text for text in texts) == 1
    relay.close()


@pytest.mark.parametrize("route", ["login", "users", "models"])
def test_arthur_in_trouble_at_start_is_waited_for(
    route: str, sandbox: ArthurSandbox, settings: RelaySettings
) -> None:
    sandbox.faults.status(503, times=3, routes=(route,))
    handler = ArthurCallbackHandler.from_credentials(
        sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
    )
    capture_through([handler])
    assert handler.flush(30).delivered == 1


def test_a_token_is_refreshed_before_it_expires(settings: RelaySettings) -> None:
    with ArthurSandbox(token_seconds=2.0) as sandbox:
        handler = ArthurCallbackHandler.from_credentials(
            sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
        )
        # A token of so short a life is replaced at half of it, before it is ever refused.
        while logins(sandbox) < 2:
            capture_through([handler])
            assert not handler.flush(30).timed_out
        assert all(request.status != 401 for request in sandbox.requests)


def test_every_request_asks_for_an_answer_that_is_not_encoded(
    sandbox: ArthurSandbox, settings: RelaySettings
) -> None:
    sandbox.faults.status(403, routes=("users",))  # so that all routes are asked
    sandbox.faults.status(404)  # and the model once more
    relay = Relay.from_credentials(
        sandbox.model_id, sandbox.url, sandbox.login, sandbox.password, settings=settings
    )
    capture(relay, "a")
    assert relay.flush(30).delivered == 1
    relay.log_ground_truth("a", {"thumbs_up": True})
    assert relay.flush(30).delivered == 2
    asked = {(each.method, each.path.partition("/api/v3")[2]) for each in sandbox.requests}
    model = f"/models/{sandbox.model_id}"
    assert asked >= {
        ("POST", "/login"),
        ("GET", "/users/me"),
        ("GET", "/users/me/auth_info"),
        ("POST", f"{model}/inferences"),
        ("PATCH", f"{model}/inferences"),
    }
    assert any(method == "GET" and path.startswith(model) for method, path in asked)
    assert {each.headers["accept-encoding"] for each in sandbox.requests} == {"identity"}
    relay.close()
