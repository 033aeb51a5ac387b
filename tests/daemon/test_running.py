"""How the daemon runs: signals, the end, reloads, one a spool, and what survives kill -9."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from arthur_relay.daemon.configuration import load
from arthur_relay.daemon.server import Daemon
from tests.daemon.process import PATIENT, DaemonProcess, arrived, row
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

TOKEN, OTHER = "0123456789abcdef-one", "0123456789abcdef-two"


def path(sandbox: ArthurSandbox) -> str:
    return f"/api/v3/models/{sandbox.model_id}/inferences"


@pytest.mark.parametrize(
    ("number", "cold"), [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGTERM, False)]
)
def test_a_signal_drains(
    number: signal.Signals, cold: bool, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    sandbox.faults.slow(0.3, routes=("inferences",))
    sent = [row(f"i{each}") for each in range(50)]
    with DaemonProcess(sandbox, tmp_path, cold=cold).wait_until_ready() as daemon:
        assert daemon.client().post(path(sandbox), json=sent).status_code == 207
        assert daemon.end(number) == 0, daemon.log
    assert len(arrived(sandbox)) == 50
    assert "50 rows were delivered, 0 rejected, 0 stay" in daemon.log
    assert not daemon.socket.exists()


def test_unready_first_and_a_second_signal_stops_at_once(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    daemon = start(
        "--metrics-listen",
        "127.0.0.1:0",
        ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS="600",
        ARTHUR_RELAY_REQUEST_TIMEOUT_SECONDS="600",
    ).wait_until_ready()
    views = daemon.client(f"http://{daemon.address('health and metrics are on')}")
    assert views.get("/readyz").status_code == 200
    assert views.get("/api/v3/users/me").status_code == 404, "no intake here"
    sandbox.faults.hang(routes=("inferences",))
    assert daemon.client().post(path(sandbox), json=[row("a")]).status_code == 207
    wait_for(lambda: any(each.path.endswith("/inferences") for each in sandbox.requests))
    daemon.send_signal(signal.SIGTERM)
    wait_for(lambda: views.get("/readyz").status_code == 503)
    assert "stopping" in views.get("/readyz").json()["detail"]
    assert views.get("/healthz").status_code == 200
    assert not daemon.socket.exists(), "nobody can come in any more"
    assert daemon.process.poll() is None, "it waits for Arthur's answer"
    assert daemon.end(signal.SIGTERM) == 1
    assert "told so a second time" in daemon.log
    sandbox.faults.reset()
    start().wait_until_ready()
    wait_for(lambda: arrived(sandbox) == ["a"])


def test_what_is_on_its_way_is_waited_for_also_when_an_earlier_process_took_it_in(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    def sent() -> int:
        return sum(each.path.endswith("/inferences") for each in sandbox.requests)

    sandbox.faults.hang(routes=("inferences",))
    first = start().wait_until_ready()
    assert first.client().post(path(sandbox), json=[row("a")]).status_code == 207
    wait_for(lambda: sent() == 1)
    first.end(signal.SIGKILL)
    second = start(**PATIENT).wait_until_ready()
    wait_for(lambda: sent() == 2)
    second.send_signal(signal.SIGTERM)
    second.wait_for_log("stopping: no more rows are taken")
    wait_for(lambda: not second.socket.exists())
    sandbox.faults.reset()
    assert second.end(None) == 0, second.log
    assert "1 rows were delivered, 0 rejected, 0 stay" in second.log
    assert sent() == 2


def test_a_request_in_progress_is_answered(daemon: DaemonProcess, sandbox: ArthurSandbox) -> None:
    body = b'[{"partner_inference_id": "a", "inference_data": {}}]'
    head = f"POST {path(sandbox)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with (
        socket.socket(socket.AF_UNIX) as sending,
        socket.socket(socket.AF_UNIX) as idle,
    ):
        for each in (sending, idle):
            each.settimeout(30)
            each.connect(str(daemon.socket))
        sending.sendall(head.encode() + body[:10])
        wait_for(lambda: daemon.client().get("/readyz").status_code == 200)
        daemon.send_signal(signal.SIGTERM)
        daemon.wait_for_log("stopping: no more rows are taken")
        assert idle.recv(100) == b"", "idle connections are ended at once"
        sending.sendall(body[10:])
        answer = b""
        while part := sending.recv(4096):
            answer += part
    assert b" 207 " in answer.splitlines()[0]
    assert b"connection: close" in answer.lower() or answer.endswith(b"}]}")
    assert daemon.end(None) == 0, daemon.log


# httpcore leaves a Unix socket that could not connect to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_kill_9_in_mid_load_loses_nothing_that_was_acknowledged(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    acknowledged: set[str] = set()
    sandbox.faults.slow(0.02, routes=("inferences",))
    for attempt in range(3):
        daemon = start().wait_until_ready()
        before = len(acknowledged)

        def send(worker: int, daemon: DaemonProcess = daemon, attempt: int = attempt) -> None:
            with httpx.Client(
                transport=httpx.HTTPTransport(uds=str(daemon.socket)), base_url="http://x"
            ) as client:
                for number in range(10_000):
                    ids = [f"{attempt}-{worker}-{number}-{each}" for each in range(20)]
                    try:
                        answer = client.post(path(sandbox), json=[row(each) for each in ids])
                    except httpx.HTTPError:
                        return
                    if answer.status_code == 207:
                        acknowledged.update(ids)

        threads = [threading.Thread(target=send, args=(each,)) for each in range(4)]
        for each in threads:
            each.start()
        wait_for(lambda before=before: len(acknowledged) > before + 1000)  # type: ignore[misc] # lambda's default
        assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
        for each in threads:
            each.join()
    left = acknowledged - set(arrived(sandbox))
    assert left, "else nothing was at stake"
    last = start().wait_until_ready()
    wait_for(lambda: acknowledged <= set(arrived(sandbox)))
    assert last.end() == 0


def test_a_line_that_is_no_longer_in_the_file_is_forgotten_by_a_reload(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    variables = tmp_path / "variables"
    variables.write_text("ARTHUR_RELAY_DAEMON_MAX_ROWS=1\n")
    daemon = start("--env-file", str(variables)).wait_until_ready()
    daemon.wait_for_log(f"settings are read from the file {variables}")

    def status(*names: str) -> int:
        rows = [row(name) for name in names]
        return daemon.client().post(path(sandbox), json=rows).status_code

    assert status("a", "b") == 413
    variables.write_text("# nothing\n")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for_log("reloaded: ")
    assert status("a", "b") == 207


def test_a_reload_takes_over_what_it_can(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    tokens, variables = tmp_path / "tokens", tmp_path / "variables"
    tokens.write_text(f"one:{TOKEN}\n")
    variables.write_text(
        f"ARTHUR_RELAY_DAEMON_TOKENS_FILE={tokens}\n"
        "ARTHUR_RELAY_DAEMON_LISTEN=127.0.0.1:0\n"
        "ARTHUR_RELAY_DAEMON_LOG_LEVEL=info\n"
    )
    daemon = start("--env-file", str(variables)).wait_until_ready()
    client = daemon.client(f"http://{daemon.address('taking rows on')}")

    def status(token: str) -> int:
        return client.get("/api/v3/users/me", headers={"Authorization": token}).status_code

    assert (status(TOKEN), status(OTHER)) == (200, 401)
    tokens.write_text(f"two:{OTHER}\n")
    with variables.open("a") as file:
        file.write(
            "ARTHUR_RELAY_DAEMON_MAX_ROWS=1\n"
            "ARTHUR_RELAY_BATCH_SIZE=7\n"
            "ARTHUR_ENDPOINT_URL=http://localhost:1\n"
        )
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for_log("reloaded: ")
    assert (status(TOKEN), status(OTHER)) == (401, 200)
    two = [row("a"), row("b")]
    assert daemon.client().post(path(sandbox), json=two).status_code == 413
    daemon.wait_for_log(
        "a restart is needed for the changes of: ARTHUR_RELAY_BATCH_SIZE, ARTHUR_ENDPOINT_URL"
    )
    tokens.write_text("no token\n")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for_log("nothing is reloaded, all goes on as it was")
    assert (status(TOKEN), status(OTHER)) == (401, 200)
    variables.write_text("ARTHUR_RELAY_DAEMON_MAX_ROWS=many\n")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for_log("ARTHUR_RELAY_DAEMON_MAX_ROWS can't be 'many'")
    assert daemon.client().post(path(sandbox), json=[row("a")]).status_code == 207
    assert daemon.end() == 0


def test_a_key_is_renewed_by_a_reload(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("revoked-key\n")
    daemon = start(ARTHUR_API_KEY="", ARTHUR_API_KEY_FILE=str(key)).wait_until_ready()
    model = f"/api/v3/models/{sandbox.model_id}"
    answer = daemon.client().get(model)
    assert answer.status_code == 503, "the daemon's own trouble, not the client's"
    assert answer.json() == {"error": "Arthur refused the daemon's own credentials"}
    key.write_text(f"{sandbox.api_key}\n")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for_log("reloaded: ")
    assert daemon.client().get(model).status_code == 200
    assert daemon.client().post(path(sandbox), json=[row("a")]).status_code == 207
    wait_for(lambda: arrived(sandbox) == ["a"])
    assert "revoked-key" not in daemon.log


def test_what_is_on_its_way_at_the_deadline_is_not_sent_twice(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    variables = {
        "ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS": "5",
        "ARTHUR_RELAY_BATCH_SIZE": "10",
        "ARTHUR_RELAY_MAX_IN_FLIGHT": "1",
    }
    daemon = start(**variables).wait_until_ready()
    sandbox.faults.slow(0.7, routes=("inferences",))
    sent = [row(f"i{each}") for each in range(200)]
    assert daemon.client().post(path(sandbox), json=sent).status_code == 207
    assert daemon.end() == 0
    left = re.search(r"(\d+) stay in the spool", daemon.log)
    assert left is not None
    assert 0 < int(left[1]) < 200, "else nothing was at stake"
    assert len(arrived(sandbox)) == 200 - int(left[1])
    sandbox.faults.reset()
    start().wait_until_ready()
    wait_for(lambda: len(arrived(sandbox)) == 200)
    assert sandbox.duplicates == 0


def test_one_daemon_a_spool(start: Callable[..., DaemonProcess]) -> None:
    first = start().wait_until_ready()
    second = start()
    assert second.end(None) == 2
    assert re.search(rf"Another daemon \(process {first.process.pid}\) has the spool", second.log)
    assert first.client().get("/readyz").status_code == 200
    assert first.socket.exists()
    first.end(signal.SIGKILL)
    start().wait_until_ready()


def test_the_socket(start: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    group = os.getgroups()[-1] if os.getgroups() else os.getgid()
    first = start(
        ARTHUR_RELAY_DAEMON_SOCKET_MODE="0620", ARTHUR_RELAY_DAEMON_SOCKET_GROUP=str(group)
    ).wait_until_ready()
    found = first.socket.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o620
    assert found.st_gid == group
    taken = start(
        ARTHUR_RELAY_DAEMON_SOCKET=str(first.socket),
        ARTHUR_RELAY_SPOOL_DIR=str(tmp_path / "other"),
    )
    assert taken.end(None) == 2
    assert "Another process listens on" in taken.log
    first.end(signal.SIGKILL)
    assert first.socket.exists(), "kill -9 leaves it behind"
    second = start(ARTHUR_RELAY_DAEMON_SOCKET=str(first.socket)).wait_until_ready()
    assert first.client().get("/readyz").status_code == 200
    assert second.end() == 0


def test_something_else_where_the_socket_belongs(
    start: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    daemon = start("--socket", str(tmp_path / "file"))
    assert daemon.end(None) == 2
    assert "is not a socket" in daemon.log
    assert (tmp_path / "file").read_text() == "mine"


def test_users_who_may_not(start: Callable[..., DaemonProcess], sandbox: ArthurSandbox) -> None:
    others = start(ARTHUR_RELAY_DAEMON_ALLOWED_UIDS=f"{os.getuid() + 1}").wait_until_ready()
    answer = others.client().post(path(sandbox), json=[row("a")])
    assert answer.status_code == 403
    assert others.client().get("/healthz").status_code == 200
    others.end()
    ours = start(ARTHUR_RELAY_DAEMON_ALLOWED_UIDS=f"1, {os.getuid()}").wait_until_ready()
    assert ours.client().post(path(sandbox), json=[row("a")]).status_code == 207


BAD: list[tuple[dict[str, str], str]] = [
    ({"ARTHUR_RELAY_SPOOL_DIR": ""}, "needs a spool: set ARTHUR_RELAY_SPOOL_DIR"),
    ({"ARTHUR_RELAY_BATCH_SIZE": "0"}, "ARTHUR_RELAY_BATCH_SIZE"),
    ({"ARTHUR_RELAY_DAEMON_SOCKET_MODE": "rw"}, "SOCKET_MODE can't be 'rw'"),
    ({"ARTHUR_RELAY_DAEMON_LISTEN": "0.0.0.0:0"}, "only a loopback address is allowed"),
    ({"ARTHUR_RELAY_DAEMON_LISTEN": "localhost"}, "LISTEN can't be 'localhost'"),
    ({"ARTHUR_RELAY_DAEMON_TLS_KEY": "key"}, "go together"),
    ({"ARTHUR_RELAY_REDACT": "all"}, "ARTHUR_RELAY_REDACT does nothing in the daemon"),
    ({"ARTHUR_RELAY_DISABLED": "true"}, "nothing for the daemon to do"),
    ({"ARTHUR_RELAY_DAEMON_SOCKET": "none"}, "nothing to listen on"),
    ({"ARTHUR_RELAY_DAEMON_SOCKET_GROUP": "no-such-group"}, "no group 'no-such-group'"),
    ({"ARTHUR_RELAY_DAEMON_SOCKET": "/nowhere/x.sock"}, "can't be made"),
    ({"ARTHUR_RELAY_DAEMON_MAX_BODY_BYTES": "999999999"}, "MAX_INTAKE_BYTES"),
    ({"ARTHUR_API_KEY": "", "ARTHUR_LOGIN": ""}, "No Arthur authentication was given"),
]


@pytest.mark.parametrize(("variables", "sentence"), BAD)
def test_a_bad_configuration_is_one_clear_line(
    variables: dict[str, str], sentence: str, start: Callable[..., DaemonProcess]
) -> None:
    daemon = start(**variables)
    assert daemon.end(None) == 2
    (line,) = daemon.log.splitlines()
    assert line.startswith("arthur-relay: ")
    assert sentence in line


def test_a_spool_that_can_not_be_used(start: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    daemon = start(ARTHUR_RELAY_SPOOL_DIR=str(tmp_path / "file"))
    assert daemon.end(None) == 2
    assert "can't be used" in daemon.log


def test_langchain_is_not_loaded(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    # It would take a fifth of the start, and memory for as long as the daemon runs.
    look = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('loaded:', 'langchain_core' in sys.modules, flush=True))"
    )
    with DaemonProcess(sandbox, tmp_path, before=look) as daemon:
        client = daemon.wait_until_ready().client()
        assert client.post(path(sandbox), json=[row("a")]).status_code == 207
        assert daemon.end() == 0
        assert arrived(sandbox) == ["a"]
        assert "loaded: False" in daemon.log


def test_a_wrong_model_is_told_at_once_and_costs_no_dead_letter(
    daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    answer = daemon.client().post("/api/v3/models/nope/inferences", json=[row("a")])
    assert answer.status_code == 404
    assert answer.json() == {"error": "no such model"}
    sandbox.go_away()
    began_at = time.monotonic()
    answers = [
        daemon.client().post(f"/api/v3/models/new-{each}/inferences", json=[row("a")])
        for each in range(20)
    ]
    assert [each.status_code for each in answers] == [207] * 20, "nobody can tell"
    assert time.monotonic() - began_at < 10, "and it is not asked for each of them"


def test_log_lines_are_json_and_hold_no_text(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    daemon = start(ARTHUR_RELAY_DAEMON_LOG_LEVEL="debug").wait_until_ready()
    client: Any = daemon.client(headers={"Authorization": "canary-key"})
    client.post(path(sandbox), json=[row("a", output_text="canary-text"), {"x": "canary-row"}])
    client.post(path(sandbox), content=b'[{"canary-body"')
    client.get("/canary-path")
    assert daemon.end() == 0
    assert "canary" not in daemon.log
    assert sandbox.api_key not in daemon.log
    for line in daemon.log.splitlines():
        assert re.match(r'\{"time": ".*", "level": "\w+", "logger": ".*", "message": "', line), line


def test_a_reload_tells_of_mistyped_variables_and_refuses_those_of_privacy(
    start: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    variables = tmp_path / "variables"
    variables.write_text("# nothing\n")
    daemon = start("--env-file", str(variables)).wait_until_ready()
    variables.write_text("ARTHUR_RELAY_BATCH_SZIE=1\nARTHUR_RELAY_DAEMON_MAX_ROW=1\n")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for_log("did you mean ARTHUR_RELAY_DAEMON_MAX_ROWS?")
    daemon.wait_for_log("did you mean ARTHUR_RELAY_BATCH_SIZE?")
    variables.write_text("ARTHUR_RELAY_REDCT=all\n")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for_log("nothing is reloaded, all goes on as it was: ARTHUR_RELAY_REDCT")
    assert daemon.end() == 0


@pytest.mark.parametrize(
    "line",
    [
        "ARTHUR_RELAY_DAEMON_TOKENS_FILE=/nowhere/tokens",
        "ARTHUR_RELAY_DAEMON_MAX_ROWS=many",
        "ARTHUR_RELAY_DAEMON_MAX_INTAKE_BYTES=2048",
    ],
)
def test_a_reload_that_is_refused_leaves_the_environment_as_it_was(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = dict(os.environ)
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("ARTHUR_ENDPOINT_URL", "http://localhost:1")
    monkeypatch.setenv("ARTHUR_API_KEY", "key")
    variables = tmp_path / "variables"
    variables.write_text("HTTPS_PROXY=http://old.invalid\n")
    read = partial(load, variables, started_with=dict(os.environ))
    try:
        daemon = Daemon(read(), read, environment={})
        before = dict(os.environ)
        assert before["HTTPS_PROXY"] == "http://old.invalid"
        variables.write_text(f"HTTPS_PROXY=http://new.invalid\nSSL_CERT_FILE=/nowhere\n{line}\n")
        daemon._apply_reload()
        assert "nothing is reloaded, all goes on as it was" in caplog.text
        assert dict(os.environ) == before
    finally:
        os.environ.clear()
        os.environ.update(whole)
