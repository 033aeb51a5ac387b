"""`arthur-relay check`: each way in which an environment can be wrong, against a local Arthur."""

from __future__ import annotations

import io
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
from rich.console import Console

from arthur_relay.cli import check as check_module
from arthur_relay.cli.check import coverage
from arthur_relay.cli.report import Report, secrets, table
from arthur_relay.daemon.configuration import unknown_variables
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.destinations.scope.schema import Attribute, ModelSchema
from arthur_relay.encoding.run_fields import RUN_VALUES
from arthur_relay.sandbox import ArthurSandbox, attribute
from arthur_relay.testing import LLM_ATTRIBUTES
from tests.end_to_end.fronts import TlsFront

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Run

pytestmark = pytest.mark.one_python

CANARY = "canary-Zq7"


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArthurSandbox]:
    """A sandbox whose secrets can be searched for."""
    with ArthurSandbox(api_key=f"{CANARY}-key", password=f"{CANARY}-password") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


def marks(output: str, mark: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(f" {mark}  ")]


def test_all_is_well(run: Run, environment: dict[str, str], sandbox: ArthurSandbox) -> None:
    result = run("check")
    assert result.exit_code == 0, result.output
    assert [line.split()[1] for line in marks(result.output, "✓")] == [
        "Settings",
        "Credentials",
        "Arthur",
        "Access",
        "Model",
    ]
    assert "prompts go to input_text, answers to output_text" in result.output
    assert "Sent: output_tokens, output_likelihoods, finish_reason" in result.output
    assert "could be sent too: cached_tokens, " in result.output
    assert "run_id, parent_run_id." in result.output
    assert "metadata: user_id." in result.output
    assert result.output.splitlines()[-1].startswith("Ready")
    assert sandbox.inferences == []
    assert {request.method for request in sandbox.requests} == {"GET"}


def test_a_login_works_as_well(
    run: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARTHUR_API_KEY")
    monkeypatch.setenv("VERIFY_SSL", "false")
    monkeypatch.setenv("ARTHUR_RELAY_BATCH_SIZE", "7")
    monkeypatch.setenv("ARTHUR_RELAY_DISABLED", "true")
    result = run("check")
    assert result.exit_code == 0
    assert "It accepted the login admin." in result.output
    assert "set: batch_size, disabled." in result.output
    assert len(marks(result.output, "!")) == 2  # disabled, and no certificates checked
    assert result.output.rstrip().endswith(
        "Disabled: all is right, and nothing is sent (2 warnings)."
    )


def test_a_password_asked_for_is_a_warning(
    run: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARTHUR_API_KEY")
    password = environment["ARTHUR_PASSWORD"]
    monkeypatch.setenv("ARTHUR_PASSWORD", "")  # as good as none
    monkeypatch.setattr("getpass.getpass", lambda _prompt: password)
    result = run("check")
    assert result.exit_code == 0
    assert "ARTHUR_PASSWORD is not set" in result.output
    assert password not in result.output


@pytest.mark.parametrize(
    ("variables", "subject", "told"),
    [
        ({"ARTHUR_API_KEY": "wrong"}, "Access", "check the API key"),
        ({"ARTHUR_API_KEY": "", "ARTHUR_PASSWORD": "wrong"}, "Access", "refused the login admin"),
        ({"ARTHUR_MODEL_ID": "wrong"}, "Model", "no model with id wrong"),
        ({"ARTHUR_MODEL_ID": ""}, "Model", "ARTHUR_MODEL_ID is not set"),
        ({"ARTHUR_API_KEY": "", "ARTHUR_LOGIN": ""}, "Credentials", "No Arthur authentication"),
        ({"ARTHUR_RELAY_BATCH_SIZE": "0"}, "Settings", "ARTHUR_RELAY_BATCH_SIZE) can't be '0'"),
        ({"ARTHUR_ENDPOINT_URL": "app.arthur.ai"}, "Credentials", "has no scheme"),
        ({"ARTHUR_ENDPOINT_URL": "http://[::1"}, "Credentials", ""),
        ({"ARTHUR_ENDPOINT_URL": "http://127.0.0.1:99999"}, "", ""),
        ({"ARTHUR_API_KEY": "schlüssel"}, "", ""),
        ({"VERIFY_SSL": "perhaps"}, "Credentials", "VERIFY_SSL can't be"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_something_is_wrong(
    run: Run,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    subject: str,
    told: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = run("check")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    (wrong,) = marks(result.output, "✗")
    assert subject in wrong
    assert told in wrong
    assert result.output.splitlines()[-1].startswith("Not ready")


def test_a_model_that_is_no_llm(
    run: Run,
    environment: dict[str, str],
    sandbox: ArthurSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model_id = sandbox.add_model([attribute("age", "INTEGER", "PIPELINE_INPUT")])
    monkeypatch.setenv("ARTHUR_MODEL_ID", model_id)
    result = run("check")
    assert result.exit_code == 1
    assert "is not a text model" in marks(result.output, "✗")[0]
    assert "It accepted the API key" in result.output


def test_a_model_with_little_and_with_a_type_that_does_not_fit(
    run: Run,
    environment: dict[str, str],
    sandbox: ArthurSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model_id = sandbox.add_model(
        [
            attribute("question", "UNSTRUCTURED_TEXT", "PIPELINE_INPUT"),
            attribute("answer", "UNSTRUCTURED_TEXT", "PREDICTED_VALUE"),
            attribute("duration", "INTEGER", "NON_INPUT_DATA"),
        ]
    )
    monkeypatch.setenv("ARTHUR_MODEL_ID", model_id)
    result = run("check")
    assert result.exit_code == 0
    assert "prompts go to question, answers to answer" in result.output
    assert "duration is registered as INTEGER" in marks(result.output, "!")[0]
    assert "Runs that fail are not sent" in result.output
    assert "Sent:" not in result.output


def test_arthur_that_is_not_there(
    run: Run, environment: dict[str, str], sandbox: ArthurSandbox
) -> None:
    sandbox.stop()
    result = run("check")
    assert result.exit_code == 1
    assert "Arthur can't be reached at http" in marks(result.output, "✗")[0]


@pytest.mark.parametrize("route", ["login", "users", "models"])
@pytest.mark.usefixtures("environment")
def test_arthur_that_answers_503_was_reached(
    run: Run, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    monkeypatch.delenv("ARTHUR_API_KEY", raising=False)
    monkeypatch.delenv("ARTHUR_ORGANIZATION_ID", raising=False)
    monkeypatch.setenv("ARTHUR_LOGIN", sandbox.login)
    monkeypatch.setenv("ARTHUR_PASSWORD", sandbox.password)
    sandbox.faults.status(503, times=None, routes=(route,))
    result = run("check")
    assert result.exit_code == 1
    (line,) = [each for each in marks(result.output, "✗") if each.split()[1] == "Arthur"]
    assert "Arthur answered 503 (" in line
    assert sandbox.url in line
    assert "reached" not in line


@pytest.mark.usefixtures("environment")
def test_proxy_variables_that_can_not_be_understood_are_warnings(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing is reached through them: the proxy here takes no connection."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    monkeypatch.setenv("ARTHUR_ENDPOINT_URL", "https://arthur.invalid")
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", "[::1/200")
    result = run("check")
    (warning,) = [line for line in marks(result.output, "!") if line.split()[1] == "Proxy"]
    assert "NO_PROXY" in warning
    assert result.exit_code == 1, "what can't be reached is wrong, and no exception"
    assert "Traceback" not in result.output


def test_arthur_that_does_not_answer_in_time(
    run: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_RELAY_CONNECT_TIMEOUT_SECONDS", "0.05")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("ARTHUR_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        result = run("check")
    assert result.exit_code == 1
    assert "no answer within 0.05 s" in marks(result.output, "✗")[0]


def test_typos_are_warnings_with_the_nearest_name(
    run: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_RELAY_BATCH_SZIE", CANARY)
    monkeypatch.setenv("ARTHUR_RELAY_PORT_80_TCP", "tcp://10.0.0.1:80")
    result = run("check")
    assert result.exit_code == 0
    (warning,) = marks(result.output, "!")
    assert "did you mean ARTHUR_RELAY_BATCH_SIZE?" in warning
    assert CANARY not in result.output
    assert "(1 warning)" in result.output.splitlines()[-1]


def test_which_variables_are_unknown() -> None:
    names = [
        "arthur_relay_batch_size",
        "arthur_relay_queue_sizes",
        "ARTHUR_RELAY_MODEL_ID",
        "ARTHUR_RELAY_XYZ",
        "ARTHUR_RELAY_SERVICE_HOST",
        "ARTHUR_MODEL_ID",
        "PATH",
    ]
    assert list(unknown_variables(names)) == [
        ("ARTHUR_RELAY_MODEL_ID", "ARTHUR_MODEL_ID"),
        ("ARTHUR_RELAY_XYZ", None),
        ("arthur_relay_queue_sizes", "ARTHUR_RELAY_QUEUE_SIZE"),
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"ARTHUR_API_KEY": f"{CANARY}-wrong"},
        {"ARTHUR_API_KEY": "", "ARTHUR_PASSWORD": f"{CANARY}-wrong"},
        {"ARTHUR_API_KEY": f"{CANARY}-\u00fc"},
        {"ARTHUR_API_KEY": f"{CANARY}\n"},
        {"ARTHUR_ENDPOINT_URL": f"ftp://ada:{CANARY}@127.0.0.1"},
        {"ARTHUR_ENDPOINT_URL": f"ada:{CANARY}@127.0.0.1"},
        {"ARTHUR_ENDPOINT_URL": f"http://ada:{CANARY}@127.0.0.1"},
        {"ARTHUR_ENDPOINT_URL": f"{CANARY}-key"},
        {"ARTHUR_RELAY_API_KEY": CANARY},
    ],
    ids=repr,
)
def test_no_secret_is_printed(
    run: Run,
    guarded: ArthurSandbox,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, str],
) -> None:
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    result = run("check")
    assert CANARY not in result.output
    assert isinstance(result.exception, SystemExit | None)


@pytest.mark.parametrize("name", ["ARTHUR_API_KEY", "ARTHUR_ENGINE_API_KEY", "ARTHUR_PASSWORD"])
@pytest.mark.parametrize("given", ["variable", "file", "credential"])
def test_every_secret_is_known_wherever_it_is(
    name: str, given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / name.lower().replace("_", "-")
    file.write_text(f"{CANARY}\n", encoding="utf-8")
    match given:
        case "variable":
            monkeypatch.setenv(name, CANARY)
        case "file":
            monkeypatch.setenv(f"{name}_FILE", str(file))
        case _:
            monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    report = Report(secrets=secrets())
    report.wrong("Access", f"Arthur says: who is {CANARY}?")
    assert report.checks == [("✗", "Access", "Arthur says: who is ***?")]
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path))  # no file
    assert secrets() == ((CANARY,) if given == "variable" else ())


@pytest.mark.parametrize(
    ("secret", "sentence", "shown"),
    [
        ("k", "API key k", "API key k"),
        ("password", "Set ARTHUR_PASSWORD; passwords are wrong", None),
        ("pass", "the password is wrong", None),
        ("secret-key", "https://me:secret-key@host", "https://me:***@host"),
        ("secret-key", "Bearer secret-key.", "Bearer ***."),
        ("a+b(c", "who is a+b(c?", "who is ***?"),
    ],
)
def test_a_secret_is_masked_as_a_word(secret: str, sentence: str, shown: str | None) -> None:
    report = Report(secrets=(secret,))
    report.note("Access", sentence)
    assert report.checks == [("-", "Access", sentence if shown is None else shown)]


def test_the_sandboxs_model_takes_what_the_encoder_sends() -> None:
    schema = ModelSchema("m", LLM_ATTRIBUTES)
    found = coverage(schema)
    assert found.unfit == []
    named = {"output_tokens", "output_likelihoods", *RUN_VALUES} & schema.types.keys()
    assert set(found.sent) == named
    assert set(found.absent) == RUN_VALUES.keys() - named


def test_every_type_that_a_run_tells_has_an_example() -> None:
    everything = [Attribute(name, each.kind, "NON_INPUT_DATA") for name, each in RUN_VALUES.items()]
    texts = [each for each in LLM_ATTRIBUTES if each.value_type == "UNSTRUCTURED_TEXT"]
    found = coverage(ModelSchema("m", [*texts, *everything]))
    assert set(found.sent) == set(RUN_VALUES)


def test_the_table_of_a_terminal_takes_brackets_as_text() -> None:
    report = Report()
    report.fine("Model", "[bold]m[/bold] is fine")
    report.note("More", "is dim")
    screen = io.StringIO()
    Console(file=screen, force_terminal=True, width=60, color_system=None).print(table(report))
    assert "✓  Model  [bold]m[/bold] is fine" in screen.getvalue()


def test_a_terminal_gets_thetable(
    run: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = run("check")
    assert result.exit_code == 0
    assert "\x1b[" in result.output


def test_errors_of_the_libraries_are_not_quoted(
    run: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ExceptionGroup("several", [OverflowError(CANARY)])

    monkeypatch.setattr(ScopeDestination, "of", broken)
    result = run("check")
    assert result.exit_code == 1
    assert "can't be asked (OverflowError)" in marks(result.output, "✗")[0]
    assert CANARY not in result.output


def test_an_address_that_the_library_can_not_read(
    run: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**arguments: object) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(check_module, "credentials_from_environment", broken)
    result = run("check")
    assert result.exit_code == 1
    assert "can't be read as an address" in marks(result.output, "✗")[0]
    assert CANARY not in result.output


def test_a_client_certificate_is_loaded(
    run: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    file = tmp_path / "client.pem"
    monkeypatch.setenv("ARTHUR_RELAY_CLIENT_CERT_FILE", str(file))
    file.write_text(CANARY)
    result = run("check")
    assert result.exit_code == 0
    assert "address has no TLS" in marks(result.output, "!")[0]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with TlsFront(context, int(environment["ARTHUR_ENDPOINT_URL"].rpartition(":")[2])) as front:
        monkeypatch.setenv("ARTHUR_ENDPOINT_URL", f"https://127.0.0.1:{front.port}")
        result = run("check")
        assert result.exit_code == 1
        (line,) = marks(result.output, "✗")
        assert "no PEM file with a certificate and its key" in line
        assert CANARY not in result.output
        found = authority.issue_cert("relay@example.com")
        found.private_key_and_cert_chain_pem.write_to_path(str(file))
        result = run("check")
    assert result.exit_code == 0, result.output
    assert "The client certificate" in "".join(marks(result.output, "✓"))
