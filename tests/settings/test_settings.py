"""Settings and credentials: by keyword, by environment, and one clear error for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arthur_relay import RelaySettings, SettingsError
from arthur_relay.credentials import check_url, credentials_from_environment, resolve_credentials
from arthur_relay.errors import ConfigurationError, CredentialsError
from arthur_relay.settings import Connect, Durability, Overflow, Trace
from arthur_relay.settings.types import BuiltInRedactor
from tests.environment import forget_arthur


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch)


OTHER: dict[str, tuple[str, Any]] = {
    "batch_size": ("7", 7),
    "batch_bytes": ("4096", 4096),
    "flush_interval_seconds": ("0.25", 0.25),
    "queue_size": ("9", 9),
    "queue_bytes": ("8192", 8192),
    "overflow": ("block", Overflow.BLOCK),
    "spool_dir": ("somewhere/else", Path("somewhere/else")),
    "spool_bytes": ("2097152", 2_097_152),
    "durability": ("power", Durability.POWER),
    "dead_letter_file": ("letters.jsonl", Path("letters.jsonl")),
    "dead_letter_bytes": ("2048", 2048),
    "block_timeout_seconds": ("3", 3.0),
    "max_in_flight": ("11", 11),
    "connect_timeout_seconds": ("2.5", 2.5),
    "request_timeout_seconds": ("12", 12.0),
    "connection_max_age_seconds": ("20", 20.0),
    "client_cert_file": ("client.pem", Path("client.pem")),
    "client_key_file": ("client.key", Path("client.key")),
    "retry_initial_seconds": ("0.1", 0.1),
    "retry_max_seconds": ("60", 60.0),
    "retry_max_elapsed_seconds": ("99", 99.0),
    "retry_after_max_seconds": ("17", 17.0),
    "breaker_failures": ("3", 3),
    "breaker_max_seconds": ("45", 45.0),
    "shutdown_timeout_seconds": ("8", 8.0),
    "max_open_runs": ("12", 12),
    "run_max_age_seconds": ("30", 30.0),
    "redact": ("email,phone", (BuiltInRedactor.EMAIL, BuiltInRedactor.PHONE)),
    "hide_inputs": ("true", True),
    "hide_outputs": ("true", True),
    "max_text_bytes": ("128", 128),
    "sample_rate": ("0.5", 0.5),
    "connect": ("lazy", Connect.LAZY),
    "trace": ("llm", Trace.LLM),
    "flush_on_sigterm": ("true", True),
    "allow_insecure": ("true", True),
    "disabled": ("true", True),
}
"""For every setting a text that is not its default, and what it means."""


def test_every_setting_has_a_description_and_another_value_here() -> None:
    # A function can't be given by a variable.
    assert OTHER.keys() | {"on_dead_letter"} == RelaySettings.model_fields.keys()
    assert RelaySettings(on_dead_letter=print).on_dead_letter is print
    for name, field in RelaySettings.model_fields.items():
        assert field.description, name
    for name, (_, value) in OTHER.items():
        assert RelaySettings.model_fields[name].default != value, name


@pytest.mark.parametrize("name", OTHER)
def test_every_setting_can_be_given_by_its_variable(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, value = OTHER[name]
    monkeypatch.setenv(f"ARTHUR_RELAY_{name.upper()}", text)
    found = RelaySettings()
    assert getattr(found, name) == value
    assert found != RelaySettings(**{name: RelaySettings.model_fields[name].default})
    assert found == RelaySettings(**{name: value})
    assert hash(found) == hash(RelaySettings(**{name: value}))
    others = RelaySettings.model_fields.keys() - {name}
    assert all(getattr(found, o) == RelaySettings.model_fields[o].default for o in others)


def test_a_keyword_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTHUR_RELAY_BATCH_SIZE", "7")
    assert RelaySettings().batch_size == 7
    assert RelaySettings(batch_size=9).batch_size == 9
    monkeypatch.setenv("ARTHUR_RELAY_BATCH_SIZE", "")
    assert RelaySettings().batch_size == 500


WRONG: list[tuple[str, Any, str]] = [
    ("batch_size", "many", r"'many': rows in a request, at most; 1 or more \(default 500\)"),
    ("batch_size", "0", "ARTHUR_RELAY_BATCH_SIZE"),
    ("flush_interval_seconds", "nan", "seconds"),
    ("flush_interval_seconds", "-1", "seconds"),
    ("overflow", "explode", r"drop_newest, block, or spill .*\(default drop_oldest\)"),
    ("connect", "sometimes", "eager"),
    ("disabled", "perhaps", "ARTHUR_RELAY_DISABLED"),
    ("redact", "emial", r"email, phone, credit_card, ip_address, api_key or all.*default none"),
    ("redact", "email,iban", "ARTHUR_RELAY_REDACT"),
    ("sample_rate", "1.5", r"0 to 1 \(default 1.0\)"),
    ("max_text_bytes", "63", "64 or more, or none"),
    ("max_text_bytes", "short", r"\(default none\)"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_bad_value_is_one_clear_error(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for how in ("keyword", "environment"):
        arguments = {name: value} if how == "keyword" else {}
        if how == "environment":
            monkeypatch.setenv(f"ARTHUR_RELAY_{name.upper()}", value)
        with pytest.raises(SettingsError, match=message) as raised:
            RelaySettings(**arguments)
        assert isinstance(raised.value, ValueError)
        assert "\n" not in str(raised.value)
        assert repr(value) in str(raised.value)


def test_redactors_are_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def redact(text: str) -> Any:
        monkeypatch.setenv("ARTHUR_RELAY_REDACT", text)
        return RelaySettings().redact

    assert redact("email") == ("email",)
    assert redact(" Email, phone,,email ") == ("email", "phone")
    assert redact("all") == redact("ALL,email")
    assert set(redact("all")) == {"email", "phone", "credit_card", "ip_address", "api_key"}
    assert redact("none") is redact("None") is redact("") is redact(" , ") is None
    monkeypatch.setenv("ARTHUR_RELAY_MAX_TEXT_BYTES", "None")
    assert RelaySettings().max_text_bytes is None


def shout(text: str) -> str:
    return text.upper()


class Unhashable:
    """As an instance of a dataclass is."""

    __hash__ = None  # type: ignore[assignment]  # the point

    def __call__(self, text: str) -> str:
        return text + "!"

    def method(self, text: str) -> str:
        return text


UNHASHABLE = Unhashable()


@pytest.mark.parametrize(
    "redact",
    [
        None,
        (),
        "all",
        shout,
        str.upper,
        UNHASHABLE,
        BuiltInRedactor.EMAIL,
        ["email", shout],
        (UNHASHABLE, "phone"),
        {"email"},
    ],
)
def test_the_same_redactors_make_the_same_settings(redact: Any) -> None:
    one, other = RelaySettings(redact=redact), RelaySettings(redact=redact)
    assert one == other
    assert hash(one) == hash(other)
    assert one != RelaySettings(redact=lambda text: text)


def test_functions_are_compared_as_they_compare_themselves() -> None:
    hashable = [str.upper, "text".replace]
    for function in hashable:
        assert RelaySettings(redact=function) == RelaySettings(redact=function)
    # Two that would be equal as objects, and may do different things.
    assert RelaySettings(redact=Unhashable()) != RelaySettings(redact=Unhashable())
    (kept,) = RelaySettings(redact=UNHASHABLE).redact or ()
    assert callable(kept)
    assert kept("a") == "a!"
    assert "Unhashable" in repr(kept)


def test_what_is_no_redactor_is_refused() -> None:
    async def later(text: str) -> str:
        return text

    for wrong in (5, [5], ["nope"], [["email"]], b"email", later, [None]):
        with pytest.raises(SettingsError, match="what is redacted in texts"):
            RelaySettings(redact=wrong)


def test_an_unknown_setting_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"no setting 'batchsize'; there are: .*batch_size"):
        RelaySettings(batchsize=5)


def test_what_waits_in_memory_is_bounded_in_all() -> None:
    settings = RelaySettings(queue_bytes=1_000_000)
    parts = {
        "open runs": settings.open_runs_bytes,
        "capture queue": settings.capture_queue_bytes,
        "dead letters": settings.dead_letter_ring_bytes,
        "rows": settings.buffer_bytes,
    }
    assert parts == {  # docs/settings.md says which parts
        "open runs": 187_500,
        "capture queue": 125_000,
        "dead letters": 62_500,
        "rows": 625_000,
    }


def test_spilling_needs_a_spool(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"can't be 'spill' without a spool: set spool_dir"):
        RelaySettings(overflow="spill")
    assert RelaySettings(overflow=Overflow.SPILL, spool_dir=tmp_path).gives_up_oldest


def test_what_is_told_of_dead_letters_is_a_function() -> None:
    with pytest.raises(SettingsError, match="on_dead_letter"):
        RelaySettings(on_dead_letter="print")
    assert RelaySettings(on_dead_letter=print).on_dead_letter is print


def resolve(**changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "url": "https://app.arthur.ai",
        "login": None,
        "password": None,
        "allow_insecure": False,
        "environment": {},
        "can_ask": lambda: False,
        **changes,
    }
    return resolve_credentials(**arguments)


def test_the_order_of_credentials() -> None:
    assert resolve(environment={"ARTHUR_API_KEY": "k"}).api_key == "k"
    assert resolve(login="me", password="p").password == "p"
    assert resolve(login="me", environment={"ARTHUR_PASSWORD": "env"}).password == "env"
    asked = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "typed"

    found = resolve(login="admin", ask=ask, can_ask=lambda: True)
    assert found.password == "typed"
    assert asked == ["Please enter password for admin: "]


def test_a_password_is_never_asked_for_without_a_terminal() -> None:
    def ask(_prompt: str) -> str:
        raise AssertionError("asked")

    with pytest.raises(CredentialsError, match="no terminal to ask at"):
        resolve(login="admin", ask=ask)
    # Nor is standard input, where the tests run.
    with pytest.raises(CredentialsError, match="ARTHUR_PASSWORD"):
        resolve(login="admin", ask=ask, can_ask=None)


def test_a_notebook_asks_though_it_has_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    # As ipykernel does it: the kernel's standard input is no terminal.
    monkeypatch.setattr("getpass.getpass", lambda prompt: f"answer to {prompt}")
    found = resolve(login="admin", can_ask=None)
    assert found.password == "answer to Please enter password for admin: "


@pytest.mark.parametrize("error", [EOFError, NotImplementedError, ValueError("closed file")])
def test_a_question_that_cannot_be_answered_is_one_clear_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(_prompt: str) -> str:
        raise error

    with pytest.raises(CredentialsError, match="give arthur_password=.* or set ARTHUR_PASSWORD"):
        resolve(login="admin", ask=ask, can_ask=lambda: True)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(CredentialsError, match="no terminal"):
        resolve(login="admin", can_ask=None)


def test_empty_variables_are_not_set_and_no_url_is_arthurs_own() -> None:
    environment = {"ARTHUR_API_KEY": "k", "ARTHUR_ENDPOINT_URL": " "}
    assert resolve(url=None, environment=environment).url == "https://app.arthur.ai"
    environment["ARTHUR_ENDPOINT_URL"] = "https://arthur.example"
    assert resolve(url=None, environment=environment).url == "https://arthur.example"
    with pytest.raises(CredentialsError, match="no terminal"):
        resolve(login="me", environment={"ARTHUR_PASSWORD": ""})


def test_a_key_from_a_file_ends_in_a_newline_and_an_odd_one_is_refused() -> None:
    assert resolve(environment={"ARTHUR_API_KEY": "key\n"}).api_key == "key"
    for odd in ("schl\u00fcssel", "two\nlines"):
        with pytest.raises(CredentialsError, match="copy it again") as raised:
            resolve(environment={"ARTHUR_API_KEY": odd})
        assert odd not in str(raised.value)


def test_credentials_do_not_show_in_a_repr() -> None:
    found = resolve(login="me", password="canary")
    assert "canary" not in repr(found)
    assert "canary" not in repr(resolve(environment={"ARTHUR_API_KEY": "canary"}))


@pytest.mark.parametrize("value", ["true", "T", "1", "", None])
def test_certificates_are_checked(value: str | None) -> None:
    environment = {"ARTHUR_API_KEY": "k"} | ({} if value is None else {"VERIFY_SSL": value})
    assert resolve(environment=environment).verify_ssl


@pytest.mark.parametrize("value", ["false", "F", "0"])
def test_certificates_are_not_checked_when_that_is_said(value: str) -> None:
    assert not resolve(environment={"ARTHUR_API_KEY": "k", "VERIFY_SSL": value}).verify_ssl


def test_verify_ssl_that_is_neither() -> None:
    with pytest.raises(ConfigurationError, match="VERIFY_SSL can't be 'maybe'"):
        resolve(environment={"ARTHUR_API_KEY": "k", "VERIFY_SSL": "maybe"})


def test_the_environment_alone() -> None:
    environment = {"ARTHUR_LOGIN": "me", "ARTHUR_PASSWORD": "p", "ARTHUR_ORGANIZATION_ID": "o"}
    found = credentials_from_environment(allow_insecure=False, environment=environment)
    assert (found.login, found.organization_id) == ("me", "o")
    assert found.url == "https://app.arthur.ai"
    with pytest.raises(CredentialsError):
        credentials_from_environment(allow_insecure=False, environment={})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://app.arthur.ai/", "https://app.arthur.ai"),
        ("https://app.arthur.ai/api/v3/", "https://app.arthur.ai"),
        ("https://proxy.example/arthur/", "https://proxy.example/arthur"),
        (" http://localhost:8080 ", "http://localhost:8080"),
        ("http://127.0.0.5:1", "http://127.0.0.5:1"),
        ("http://[::1]:1", "http://[::1]:1"),
        ("http://a.localhost", "http://a.localhost"),
        ("unix:///run/arthur-relay/relay.sock", "unix:///run/arthur-relay/relay.sock"),
    ],
)
def test_urls_that_can_be_used(given: str, expected: str) -> None:
    assert check_url(given, allow_insecure=False) == expected


def test_plain_http_elsewhere_has_to_be_asked_for() -> None:
    with pytest.raises(ConfigurationError, match="plain HTTP"):
        check_url("http://10.0.0.1", allow_insecure=False)
    assert check_url("http://10.0.0.1", allow_insecure=True) == "http://10.0.0.1"


@pytest.fixture
def _nothing_was_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arthur_relay.settings.variables._logged", set())


@pytest.mark.usefixtures("_nothing_was_logged")
@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ARTHUR_RELAY_BATCH_SZIE", "ARTHUR_RELAY_BATCH_SIZE"),
        ("ARTHUR_RELAY_SPOOLDIR", "ARTHUR_RELAY_SPOOL_DIR"),
        ("arthur_relay_flush_intervall_seconds", "ARTHUR_RELAY_FLUSH_INTERVAL_SECONDS"),
        ("Arthur_Relay_Disable", "ARTHUR_RELAY_DISABLED"),
        ("ARTHUR_RELAY_API_KEY", "ARTHUR_API_KEY"),
        ("ARTHUR_RELAY_QQQQ", None),
        ("ARTHUR_RELAY_", None),
    ],
)
def test_a_mistyped_variable_is_told_once_with_the_nearest_name(
    name: str,
    nearest: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(name, "canary")
    assert RelaySettings() == RelaySettings()  # it breaks nothing
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"arthur-relay: {name} is not a setting")
    assert (f"did you mean {nearest}?" in line) == (nearest is not None)
    assert "canary" not in line


OF_OTHERS = [
    *["ARTHUR_API_KEY", "ARTHUR_ENDPOINT_URL", "ARTHUR_LOGIN", "ARTHUR_PASSWORD"],
    *["ARTHUR_ORGANIZATION_ID", "ARTHUR_API_KEY_FILE", "ARTHUR_PASSWORD_FILE"],
    *["ARTHUR_BASE_URL", "ARTHUR_TASK_ID", "ARTHUR_API_HOST", "ARTHUR_CLIENT_ID"],
    *["ARTHUR_CLIENT_SECRET", "ARTHUR_MODEL_ID_CHAT", "ARTHUR_MODEL_ID_2", "ARTHUR_MODEL_NAME"],
    *["ARTHUR_LAST_MODEL_ID", "ARTHUR_HOME", "ARTHUR_ENV", "ARTHUR_PORT", "ARTHUR_SERVICE_HOST"],
    *["ARTHUR_PORT_443_TCP_ADDR", "ARTHUR_ENGINE_PORT", "ARTHUR_API_PORT", "ARTHUR", "ARTHURS"],
    *["RELAY_HOST", "RELAY_PORT", "RELAY_MODE", "RELAY_UPSTREAM_URL", "RELAY_API_KEY"],
    *["RELAY_USERNAME", "RELAY_PASSWORD", "RELAY_SAMPLE_RATE", "RELAY_LOG_LEVEL", "RELAY_"],
    *["MAIL_RELAY_HOST", "POSTFIX_RELAYHOST", "SENTRY_RELAY_PORT", "RELAYHOST"],
]


@pytest.mark.usefixtures("_nothing_was_logged")
def test_variables_that_are_meant_for_others_are_not_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {
        "arthur_relay_batch_size": "5",
        "ARTHUR_RELAY_QUEUE_SIZE": "50",
        "ARTHUR_RELAY_DAEMON_SOCKET": "/run/relay.sock",
        "ARTHUR_RELAY_DAEMON_SOKET": "the daemon says so itself",
        "ARTHUR_RELAY_SERVICE_HOST": "10.0.0.1",
        "ARTHUR_RELAY_PORT_80_TCP": "tcp://10.0.0.1:80",
        "ARTHUR_MODEL_ID": "m",
        "ARTHUR_RELAYS": "3",
        **dict.fromkeys(OF_OTHERS, "canary"),
    }.items():
        monkeypatch.setenv(name, value)
    assert RelaySettings().batch_size == 5
    assert not caplog.records


@pytest.mark.usefixtures("_nothing_was_logged")
def test_a_mistyped_variable_is_told_also_where_another_is_wrong(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ARTHUR_RELAY_BATCH_SZIE", "5")
    monkeypatch.setenv("ARTHUR_RELAY_BATCH_BYTES", "few")
    with pytest.raises(SettingsError):
        RelaySettings()
    assert "BATCH_SIZE?" in caplog.text


@pytest.mark.usefixtures("_nothing_was_logged")
@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ARTHUR_RELAY_REDCT", "REDACT"),
        ("ARTHUR_RELAY_REDACTS", "REDACT"),
        ("arthur_relay_redaction", "REDACT"),
        ("ARTHUR_RELAY__REDACT", "REDACT"),
        ("ARTHUR_RELY_REDACT", "REDACT"),
        ("ATHUR_RELAY_REDACT", "REDACT"),
        ("ARTHUR_REDACT", "REDACT"),
        ("ARTHUR_RELAY_DAEMON_REDACT", "REDACT"),
        ("ARTHUR_RELAY_HIDE_INPUT", "HIDE_INPUTS"),
        ("ARTHUR_RELAY_HIDE_PROMPTS", "HIDE_INPUTS"),
        ("ARTHUR_RELAY_HIDEINPUTS", "HIDE_INPUTS"),
        ("ARTHUR_RELAY_HIDE_OUTPUT", "HIDE_OUTPUTS"),
        ("ARTHUR_RELAY_HIDE_OUPTUTS", "HIDE_OUTPUTS"),
        ("ARTHUR_RELAY_MAX_TEXT_BYTE", "MAX_TEXT_BYTES"),
        ("ARTHUR_RELAY_SAMPLERATE", "SAMPLE_RATE"),
        ("ARTHUR_RELAY_SAMPLING_RATE", "SAMPLE_RATE"),
        ("ARTHUR_RELAY_HIDE_ALL", "HIDE_INPUTS"),
        ("ARTHUR_RELAY_HIDE_ALL_ANSWERS", "HIDE_OUTPUTS"),
        ("ARTHUR_RELAY_PII_MASKING", "REDACT"),
        ("ARTHUR_RELAY_DAEMON_HIDE_ALL", "HIDE_INPUTS"),
        ("ARTHUR_HIDE_INPUT", "HIDE_INPUTS"),
        ("Arthur_Hide_Response", "HIDE_OUTPUTS"),
        ("ARTHUR_REDACTS", "REDACT"),
        ("ARTHUR_REDACTION", "REDACT"),
        ("ARTHUR_REDACT_PII", "REDACT"),
        ("ARTHUR_MAX_TEXT_BYTE", "MAX_TEXT_BYTES"),
        ("ARTHUR_SAMPLING_RATE", "SAMPLE_RATE"),
        ("RELAY_REDACT", "REDACT"),
        ("RELAY_REDACTORS", "REDACT"),
        ("RELAY_HIDE_OUTPUT", "HIDE_OUTPUTS"),
        ("RELAY_MAX_TEXT_BYTES", "MAX_TEXT_BYTES"),
    ],
)
def test_a_mistyped_setting_of_privacy_is_an_error(
    name: str, nearest: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, "canary")
    for _ in range(2):  # not only the first time
        with pytest.raises(SettingsError, match=f"^{name} is not a setting") as raised:
            RelaySettings()
        assert f"did you mean ARTHUR_RELAY_{nearest}?" in str(raised.value)
        assert "canary" not in str(raised.value)
        assert "\n" not in str(raised.value)
    # Where the application says itself what is to be, the environment has no say.
    meant: dict[str, Any] = {"redact": "all", "sample_rate": 0.5, "max_text_bytes": 64}
    setting = nearest.lower()
    given = RelaySettings(**{setting: meant.get(setting, True)})
    assert setting in given.model_fields_set
    monkeypatch.setenv("ARTHUR_RELAY_DISABLED", "true")
    assert RelaySettings().disabled, "nothing goes out"
    monkeypatch.delenv("ARTHUR_RELAY_DISABLED")
    monkeypatch.setenv(name, "")
    assert RelaySettings().redact is None


@pytest.mark.usefixtures("_nothing_was_logged")
@pytest.mark.parametrize(
    "name",
    [
        "ARTHUR_RELAY_BATCH_SZIE",
        "ARTHUR_RELAY_MAX_BATCH_BYTES",
        "ARTHUR_RELAY_REDIS_URL",
        "ARTHUR_RELAY_DAEMON_MAX_INTAKE_BYTE",
        "ARTHUR_RELAY_DAEMON_MAX_BODY_BYTES",
        "ARTHUR_RELAY_DISABLE",
        "RELAY_SAMPLE_RATE",
        "SENTRY_RELAY_SAMPLE_RATE",
        "ARTHUR_DENT",
        "ARTHUR_RELAY_UMASK",
        "ARTHUR_RELAY_PRIVATE_KEY",
        "ARTHUR_REDIS_URL",
        "ARTHUR_ENDPOINT_URI",
        "RELAY_SAMPLING_RATE",
        "RELAY_HOST",
        "HIDE_INPUTS",
        "REDACT",
        "MY_RELAY_REDACTOR",
    ],
)
def test_what_is_near_no_setting_of_privacy_stops_no_application(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "canary")
    assert RelaySettings().redact is None


@pytest.mark.usefixtures("_nothing_was_logged")
def test_a_mistyped_prefix_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ARTHUR_RELY_BATCH_SIZE", "5")
    monkeypatch.setenv("ARTHUR_SPOOL_DIR", "/tmp")
    RelaySettings()
    assert "did you mean ARTHUR_RELAY_BATCH_SIZE?" in caplog.text
    assert "did you mean ARTHUR_RELAY_SPOOL_DIR?" in caplog.text


@pytest.mark.usefixtures("_nothing_was_logged")
@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ARTHUR_ENDPOINT_URI", "ARTHUR_ENDPOINT_URL"),
        ("ARTHUR_APIKEY", "ARTHUR_API_KEY"),
        ("ARTHUR_ORGANISATION_ID", "ARTHUR_ORGANIZATION_ID"),
        ("arthur_pasword", "ARTHUR_PASSWORD"),
        ("ARTUR_API_KEY", None),  # not ours to tell
        ("ARTHUR_BATCH_SIZES", "ARTHUR_RELAY_BATCH_SIZE"),
        ("ARTHUR_DISABLED", "ARTHUR_RELAY_DISABLED"),
        ("RELAY_SPOOL_DIR", "ARTHUR_RELAY_SPOOL_DIR"),
        ("RELAY_DEAD_LETTERS_FILE", "ARTHUR_RELAY_DEAD_LETTER_FILE"),
    ],
)
def test_what_is_near_with_a_part_of_the_prefix_is_told(
    name: str,
    nearest: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(name, "canary")
    RelaySettings()
    assert (f"did you mean {nearest}?" in caplog.text) == (nearest is not None)
    assert "canary" not in caplog.text
