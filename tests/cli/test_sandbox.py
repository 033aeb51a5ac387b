"""`arthur-relay sandbox`: its lines, its end, and what it says when it can't start."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from langchain_core.language_models import FakeListChatModel

from arthur_relay import ArthurCallbackHandler
from arthur_relay.cli.sandbox import run_sandbox
from arthur_relay.credentials import ENGINE_URL, check_url
from arthur_relay.sandbox import ArthurSandbox
from tests.readme import command as command_of_page
from tests.readme import commands_of

if TYPE_CHECKING:
    from .conftest import Run

NAMES = [
    "ARTHUR_ENDPOINT_URL",
    "ARTHUR_LOGIN",
    "ARTHUR_PASSWORD",
    "ARTHUR_API_KEY",
    "ARTHUR_MODEL_ID",
]


def read_lines(output: list[str]) -> tuple[dict[str, str], str]:
    exports = [shlex.split(line) for line in output[:5]]
    assert all(words[0] == "export" and len(words) == 2 for words in exports)
    pairs = dict(words[1].split("=", 1) for words in exports)
    assert output[5].startswith("# page: ")
    return pairs, output[5].removeprefix("# page: ").strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_the_lines_answers_there_and_ends_with_a_signal(
    number: signal.Signals, command: tuple[list[str], dict[str, str]]
) -> None:
    arguments, environment = command
    process = subprocess.Popen(
        [*arguments, "sandbox", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        pairs, page = read_lines([process.stdout.readline() for _ in range(7)])
        assert list(pairs) == NAMES
        url = pairs["ARTHUR_ENDPOINT_URL"]
        model = httpx.get(
            f"{url}/api/v3/models/{pairs['ARTHUR_MODEL_ID']}",
            headers={"Authorization": pairs["ARTHUR_API_KEY"]},
        )
        assert model.status_code == 200
        login = {"login": pairs["ARTHUR_LOGIN"], "password": pairs["ARTHUR_PASSWORD"]}
        assert httpx.post(f"{url}/api/v3/login", json=login).status_code == 200
        assert httpx.get(page).headers["Content-Type"].startswith("text/html")
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, err) == (0, "", "")


HAS_IPV6 = socket.has_ipv6 and Path("/proc/net/if_inet6").exists()


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        pytest.param("::1", "[::1]", marks=pytest.mark.skipif(not HAS_IPV6, reason="no IPv6")),
    ],
)
def test_the_lines_of_a_host_are_ones_that_the_relay_takes(
    host: str, shown: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = []

    def log_to_it(sandbox: ArthurSandbox) -> None:
        for name, value in sandbox.environment().items():
            monkeypatch.setenv(name, value)
        handler = ArthurCallbackHandler.from_env()
        FakeListChatModel(responses=["hi"], callbacks=[handler]).invoke("hello")
        handler.relay.close()
        stored.extend(sandbox.inferences)

    monkeypatch.setattr(ArthurSandbox, "wait", log_to_it)
    pairs, page = read_lines(run("sandbox", "--host", host).stdout.splitlines())
    url = pairs["ARTHUR_ENDPOINT_URL"]
    assert url.rpartition(":")[0] == f"http://{shown}"
    assert page == f"{url}/"
    assert len(stored) == 1


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("0:0:0:0:0:0:0:0", "[::1]")]
)
def test_a_host_of_all_addresses_is_shown_as_one_that_the_relay_takes(
    host: str, shown: str
) -> None:
    # Not started: no test listens to more than this machine.
    sandbox = ArthurSandbox(host=host, port=8080)
    url = sandbox.environment()["ARTHUR_ENDPOINT_URL"]
    sandbox.stop()
    assert url == f"http://{shown}:8080"
    assert check_url(url, allow_insecure=False) == url


def test_a_port_that_is_given_is_the_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ArthurSandbox, "wait", lambda self: None)
    with socket.socket() as holder:
        # Two sockets can hold a port until one listens; so nobody else can take it meanwhile.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        pairs, _ = read_lines(run("sandbox", "--port", str(port)).stdout.splitlines())
    assert pairs["ARTHUR_ENDPOINT_URL"] == f"http://127.0.0.1:{port}"


def test_the_data_stays_in_the_file(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ArthurSandbox, "wait", lambda self: None)
    data = str(tmp_path / "it's here.db")
    first, _ = read_lines(run("sandbox", "--data", data).stdout.splitlines())
    second, _ = read_lines(run("sandbox", "--data", data).stdout.splitlines())
    assert first["ARTHUR_MODEL_ID"] == second["ARTHUR_MODEL_ID"]


def test_the_model_has_the_id_that_is_asked_for(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ArthurSandbox, "wait", lambda self: None)
    options = ("sandbox", "--data", str(tmp_path / "data.db"), "--model-id")
    pairs, _ = read_lines(run(*options, "model-of-mine").stdout.splitlines())
    assert pairs["ARTHUR_MODEL_ID"] == "model-of-mine"
    other = run(*options, "another")
    assert other.exit_code == 2
    assert "another" in other.stderr
    assert "model-of-mine" in other.stderr


def test_a_signal_before_it_waits_ends_it_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ArthurSandbox, "wait", lambda self: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        run_sandbox(host="127.0.0.1", port=0, data=None)
    assert ended.value.code == 0
    assert signal.getsignal(signal.SIGTERM) is before
    read_lines(capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("data", "told"), [(None, "in memory"), ("kept.db", "kept.db")], ids=["memory", "file"]
)
def test_a_terminal_is_told_how_to_end_it(
    data: str | None,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ArthurSandbox, "wait", lambda self: None)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run_sandbox(host="127.0.0.1", port=0, data=None if data is None else tmp_path / data)
    written = capsys.readouterr()
    lines = written.out.splitlines()
    assert len(lines) == 7
    assert lines[6].startswith("# as an Arthur Engine: export ARTHUR_BASE_URL=http://")
    assert told in written.err
    assert "Ctrl-C" in written.err


def test_the_organisation_of_the_environment_is_let_in(
    run: Run, environment: dict[str, str], sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_ORGANIZATION_ID", "ours")
    result = run("demo", "--pace", "5000", "--outage", "0.5")
    assert result.stdout.splitlines()[-1] == "captured 12 = delivered 12: nothing is missing."


def test_a_port_in_use_is_one_line(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("sandbox", "--port", str(port))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert f"can't listen on 127.0.0.1:{port}" in result.stderr


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "a..b"])
def test_a_bad_host_is_one_line(run: Run, host: str) -> None:
    result = run("sandbox", "--host", host)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"arthur-relay: the sandbox can't listen on {host}:0: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["folder", "text", "nowhere"])
def test_unusable_data_is_one_line(run: Run, tmp_path: Path, kind: str) -> None:
    path = {"folder": tmp_path, "text": tmp_path / "x.db", "nowhere": tmp_path / "no" / "x.db"}[
        kind
    ]
    if kind == "text":
        path.write_text("This is no database, but long enough to be taken for one. " * 40)
    result = run("sandbox", "--data", str(path))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"arthur-relay: can't use {path} for the sandbox's data: ")
    assert result.stderr.count("\n") == 1


def test_a_port_out_of_range_is_a_usage_error(run: Run) -> None:
    assert run("sandbox", "--port", "65536").exit_code == 2


def test_the_pages_command_is_where_an_engine_is_looked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, words = commands_of(command_of_page("sandbox", "docs/engine.md"))
    assert f"http://localhost:{words[-1]}" == ENGINE_URL
    monkeypatch.setattr(ArthurSandbox, "wait", lambda _: None)
    result = run(*words[1:-1], "0")  # the page's port may be taken here
    assert result.exit_code == 0
    last = result.stdout.splitlines()[-1]
    names = ["ARTHUR_BASE_URL", "ARTHUR_API_KEY", "ARTHUR_TASK_ID"]
    assert [word.partition("=")[0] for word in last.split() if "=" in word] == names
