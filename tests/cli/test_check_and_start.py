"""`check` and the start agree: on every setting, whatever its value, side by side."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arthur_relay import ArthurCallbackHandler, ConfigurationError, RelaySettings
from arthur_relay.daemon.configuration import Configuration, load
from arthur_relay.daemon.server import Daemon
from arthur_relay.daemon.settings import DAEMON_PREFIX, DaemonSettings
from arthur_relay.daemon.state import Phase
from arthur_relay.settings import ENVIRONMENT_PREFIX
from tests.waiting import turn_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arthur_relay.sandbox import ArthurSandbox

    from .conftest import Run

pytestmark = pytest.mark.one_python

TEXTS = ("many", "-1", "0", "1e400", "nan", "perhaps", "none", "true", "7", "0.5", "/proc/none", "")
"""Given to every setting. What each makes of it is its own affair; both have to say the same."""

APPLICATION: list[dict[str, str]] = [
    {},
    {"ARTHUR_RELAY_SPOOL_DIR": "/proc/arthur-relay"},
    {"ARTHUR_RELAY_SPOOL_DIR": "/proc/self/fdinfo/a/b"},
    {"ARTHUR_RELAY_SPOOL_DIR": "/sys/arthur-relay"},
    {"ARTHUR_RELAY_SPOOL_DIR": "/dev/null"},
    {"ARTHUR_RELAY_SPOOL_DIR": "/dev/null/spool"},
    {"ARTHUR_RELAY_SPOOL_DIR": "{here}/file"},
    {"ARTHUR_RELAY_SPOOL_DIR": "{here}/file/spool"},
    {"ARTHUR_RELAY_SPOOL_DIR": "{here}/" + "x" * 300},
    {"ARTHUR_RELAY_SPOOL_DIR": "{here}/new/and/deep"},
    {"ARTHUR_RELAY_SPOOL_DIR": "{here}"},
    {"ARTHUR_RELAY_OVERFLOW": "spill"},
    {"ARTHUR_RELAY_OVERFLOW": "spill", "ARTHUR_RELAY_SPOOL_DIR": "{here}/spool"},
    {"ARTHUR_RELAY_OVERFLOW": "spill", "ARTHUR_RELAY_SPOOL_DIR": "/proc/arthur-relay"},
    {"ARTHUR_RELAY_DEAD_LETTER_FILE": "/proc/none/letters"},
    {"ARTHUR_RELAY_REDCT": "all"},
    {"ARTHUR_RELAY_HIDE_INPUT": "true"},
    {"ARTHUR_RELAY_BATCH_SZIE": "7"},
    {"ARTHUR_RELAY_DISABLED": "true", "ARTHUR_RELAY_REDCT": "all"},
    {"ARTHUR_RELAY_DISABLED": "true", "ARTHUR_MODEL_ID": ""},
    {"ARTHUR_RELAY_DISABLED": "true", "ARTHUR_API_KEY": "", "ARTHUR_LOGIN": ""},
    {"ARTHUR_RELAY_DISABLED": "true", "ARTHUR_RELAY_SPOOL_DIR": "/proc/arthur-relay"},
    {"ARTHUR_MODEL_ID": " "},
    {"ARTHUR_MODEL_ID": " {model} "},
    {"ARTHUR_API_KEY": "two\nlines"},
    {"ARTHUR_API_KEY": "", "ARTHUR_LOGIN": ""},
    {"ARTHUR_API_KEY_FILE": "{here}/file"},
    {"ARTHUR_API_KEY": "", "ARTHUR_API_KEY_FILE": "{here}/none"},
    {"ARTHUR_API_KEY": "", "ARTHUR_API_KEY_FILE": "{here}"},
    {"ARTHUR_ENDPOINT_URL": "ftp://localhost"},
    {"ARTHUR_ENDPOINT_URL": "http://10.255.255.1"},
    {"ARTHUR_ENDPOINT_URL": "unix://relay.sock"},
    {"ARTHUR_ORGANIZATION_ID": "\u00fc"},
    {"VERIFY_SSL": "maybe"},
    {"VERIFY_SSL": "0"},
]

DAEMON: list[dict[str, str]] = [
    {},
    {"ARTHUR_RELAY_SPOOL_DIR": ""},
    {"ARTHUR_RELAY_SPOOL_DIR": "none"},
    {"ARTHUR_RELAY_SPOOL_DIR": "/proc/arthur-relay"},
    {"ARTHUR_RELAY_SPOOL_DIR": "{here}/file"},
    {"ARTHUR_RELAY_SPOOL_BYTES": "1048576"},
    {"ARTHUR_RELAY_DISABLED": "true"},
    {"ARTHUR_RELAY_REDACT": "all"},
    {"ARTHUR_RELAY_REDCT": "all"},
    {"ARTHUR_RELAY_DAEMON_REDACT": "all"},
    {"ARTHUR_RELAY_DAEMON_SOKET": "x"},
    {f"{DAEMON_PREFIX}SOCKET": "none"},
    {f"{DAEMON_PREFIX}SOCKET": "/proc/relay.sock"},
    {f"{DAEMON_PREFIX}SOCKET": "/dev/null/relay.sock"},
    {f"{DAEMON_PREFIX}SOCKET": "{here}/none/relay.sock"},
    {f"{DAEMON_PREFIX}SOCKET": "{here}/file"},
    {f"{DAEMON_PREFIX}SOCKET": "{here}"},
    {f"{DAEMON_PREFIX}SOCKET": "{here}/" + "x" * 200},
    {f"{DAEMON_PREFIX}SOCKET": "{taken}"},
    {f"{DAEMON_PREFIX}SOCKET": "{stale}"},
    {f"{DAEMON_PREFIX}SOCKET_GROUP": "no-such-group"},
    {f"{DAEMON_PREFIX}SOCKET_GROUP": "99999999999999999999"},
    {f"{DAEMON_PREFIX}SOCKET_GROUP": "\u00b2"},
    {f"{DAEMON_PREFIX}SOCKET_MODE": "0"},
    {f"{DAEMON_PREFIX}SOCKET_MODE": "1777"},
    {f"{DAEMON_PREFIX}ALLOWED_UIDS": "root"},
    {f"{DAEMON_PREFIX}ALLOWED_UIDS": "0, 1"},
    {f"{DAEMON_PREFIX}LISTEN": "127.0.0.1:0"},
    {f"{DAEMON_PREFIX}LISTEN": "0.0.0.0:0"},
    {f"{DAEMON_PREFIX}LISTEN": ":0", f"{DAEMON_PREFIX}TOKENS_FILE": "{tokens}"},
    {
        f"{DAEMON_PREFIX}LISTEN": "0.0.0.0:0",
        f"{DAEMON_PREFIX}TOKENS_FILE": "{tokens}",
        "ARTHUR_RELAY_ALLOW_INSECURE": "true",
    },
    {f"{DAEMON_PREFIX}LISTEN": "localhost:80000"},
    {f"{DAEMON_PREFIX}LISTEN": "{used}"},
    {f"{DAEMON_PREFIX}LISTEN": "no-such-host.invalid:0"},
    {f"{DAEMON_PREFIX}METRICS_LISTEN": "{used}"},
    {f"{DAEMON_PREFIX}METRICS_LISTEN": "0.0.0.0:0"},
    {f"{DAEMON_PREFIX}TLS_KEY": "{here}/file"},
    {f"{DAEMON_PREFIX}TLS_KEY": "{here}/file", f"{DAEMON_PREFIX}TLS_CERTIFICATE": "{here}/file"},
    {f"{DAEMON_PREFIX}TLS_KEY": "/proc/none", f"{DAEMON_PREFIX}TLS_CERTIFICATE": "{here}"},
    {f"{DAEMON_PREFIX}TOKENS_FILE": "{here}/none"},
    {f"{DAEMON_PREFIX}TOKENS_FILE": "{here}"},
    {f"{DAEMON_PREFIX}TOKENS_FILE": "{here}/file"},
    {f"{DAEMON_PREFIX}MAX_BODY_BYTES": "99999999"},
    {f"{DAEMON_PREFIX}MAX_BODY_BYTES": "99999999", f"{DAEMON_PREFIX}MAX_INTAKE_BYTES": "99999999"},
    {"ARTHUR_API_KEY": "", "ARTHUR_LOGIN": ""},
    {"ARTHUR_API_KEY": "", "ARTHUR_API_KEY_FILE": "{here}/none"},
    {"ARTHUR_ENDPOINT_URL": "http://10.255.255.1"},
    {"VERIFY_SSL": "maybe"},
    # Doors that get into each other's way.
    {f"{DAEMON_PREFIX}LISTEN": "127.0.0.1:{free}", f"{DAEMON_PREFIX}METRICS_LISTEN": "{free_too}"},
    {f"{DAEMON_PREFIX}LISTEN": "{free_too}", f"{DAEMON_PREFIX}METRICS_LISTEN": "{free_too}"},
    {f"{DAEMON_PREFIX}LISTEN": "localhost:{free}", f"{DAEMON_PREFIX}METRICS_LISTEN": "{free_too}"},
    {f"{DAEMON_PREFIX}LISTEN": "{free_too}", f"{DAEMON_PREFIX}METRICS_LISTEN": "0.0.0.0:{free}"},
    {f"{DAEMON_PREFIX}LISTEN": "{free_too}", f"{DAEMON_PREFIX}METRICS_LISTEN": ":{free}"},
    {f"{DAEMON_PREFIX}LISTEN": "127.0.0.2:{free}", f"{DAEMON_PREFIX}METRICS_LISTEN": "{free_too}"},
    {f"{DAEMON_PREFIX}LISTEN": "127.0.0.1:0", f"{DAEMON_PREFIX}METRICS_LISTEN": "127.0.0.1:0"},
    {f"{DAEMON_PREFIX}LISTEN": "[::1"},
    {f"{DAEMON_PREFIX}LISTEN": "127.0.0.1:-1"},
    {f"{DAEMON_PREFIX}METRICS_LISTEN": "a b:0"},
    {f"{DAEMON_PREFIX}METRICS_LISTEN": "\u00fc.invalid:0"},
    {f"{DAEMON_PREFIX}METRICS_LISTEN": "x" * 300 + ":0"},
    {f"{DAEMON_PREFIX}METRICS_LISTEN": "256.256.256.256:0"},
    {f"{DAEMON_PREFIX}METRICS_LISTEN": "192.0.2.1:0"},
    # A socket in the way of the spool.
    {f"{DAEMON_PREFIX}SOCKET": "{short}/spool", "ARTHUR_RELAY_SPOOL_DIR": "{short}/spool"},
    {f"{DAEMON_PREFIX}SOCKET": "{short}/a/../spool", "ARTHUR_RELAY_SPOOL_DIR": "{short}/spool"},
    {f"{DAEMON_PREFIX}SOCKET": "{short}/spool/s", "ARTHUR_RELAY_SPOOL_DIR": "{short}/spool"},
    {f"{DAEMON_PREFIX}SOCKET": "{short}/spool/0.spool", "ARTHUR_RELAY_SPOOL_DIR": "{short}/spool"},
    {f"{DAEMON_PREFIX}SOCKET": "{short}/link/s", "ARTHUR_RELAY_SPOOL_DIR": "{short}/there"},
    {f"{DAEMON_PREFIX}SOCKET": "{short}/there/s", "ARTHUR_RELAY_SPOOL_DIR": "{short}/there"},
    {f"{DAEMON_PREFIX}SOCKET": "{short}/a", "ARTHUR_RELAY_SPOOL_DIR": "{short}/a/spool"},
    {f"{DAEMON_PREFIX}SOCKET": "{short}/a/s", "ARTHUR_RELAY_SPOOL_DIR": "{short}/a/spool"},
    {f"{DAEMON_PREFIX}SOCKET": "{short}/spool.new", "ARTHUR_RELAY_SPOOL_DIR": "{short}/spool"},
    {f"{DAEMON_PREFIX}SOCKET": "{short}/spool", "ARTHUR_RELAY_SPOOL_DIR": "{short}/spool.new"},
    {f"{DAEMON_PREFIX}SOCKET": "{short}/there", "ARTHUR_RELAY_SPOOL_DIR": "{short}/spool"},
    # Locks and files in the spool's directory that a start does not use.
    {"ARTHUR_RELAY_SPOOL_DIR": "{short}/there"},
    {"ARTHUR_RELAY_SPOOL_DIR": "{short}/link"},
    {"ARTHUR_RELAY_SPOOL_DIR": "{short}/lock-is-directory"},
    {"ARTHUR_RELAY_SPOOL_DIR": "{short}/lock-is-link"},
    {"ARTHUR_RELAY_SPOOL_DIR": "{short}/lock-of-all"},
    {"ARTHUR_RELAY_SPOOL_DIR": "{short}/spool-is-directory"},
    {"ARTHUR_RELAY_SPOOL_DIR": "{short}/of-all"},
    # Sockets that are passed.
    {f"{DAEMON_PREFIX}SOCKET": "none", "LISTEN_FDS": "1", "LISTEN_PID": "1"},
    {f"{DAEMON_PREFIX}SOCKET": "none", "LISTEN_FDS": "1"},
    {f"{DAEMON_PREFIX}SOCKET": "{short}/no/s", "LISTEN_FDS": "1", "LISTEN_PID": "1"},
    {"LISTEN_FDS": "many", "LISTEN_PID": "1"},
    {"LISTEN_FDS": "many", "LISTEN_PID": "{pid}"},
    {"LISTEN_FDS": "0", "LISTEN_PID": "{pid}"},
    {f"{DAEMON_PREFIX}SOCKET": "none", "LISTEN_FDS": "0", "LISTEN_PID": "{pid}"},
    {f"{DAEMON_PREFIX}SOCKET": "none", "LISTEN_PID": "{pid}"},
    # Whose certificates are trusted.
    {"ARTHUR_ENDPOINT_URL": "https://127.0.0.1:1"},
    {"ARTHUR_ENDPOINT_URL": "https://127.0.0.1:1", "SSL_CERT_FILE": "{here}/file"},
    {"ARTHUR_ENDPOINT_URL": "https://127.0.0.1:1", "SSL_CERT_FILE": "{here}/none"},
    {"ARTHUR_ENDPOINT_URL": "https://127.0.0.1:1", "SSL_CERT_FILE": "{here}"},
    {"ARTHUR_ENDPOINT_URL": "https://127.0.0.1:1", "SSL_CERT_FILE": ""},
    {"ARTHUR_ENDPOINT_URL": "https://127.0.0.1:1", "SSL_CERT_DIR": "{here}/none"},
    {
        "ARTHUR_ENDPOINT_URL": "https://127.0.0.1:1",
        "SSL_CERT_FILE": "{here}/file",
        "VERIFY_SSL": "false",
    },
    {"ARTHUR_ENDPOINT_URL": "http://127.0.0.1:1", "SSL_CERT_FILE": "{here}/file"},
    # Addresses and who we are.
    {"ARTHUR_ENDPOINT_URL": ""},
    {"ARTHUR_ENDPOINT_URL": "http://[::1"},
    {"ARTHUR_ENDPOINT_URL": "https://"},
    {"ARTHUR_ENDPOINT_URL": "https://arthur.invalid:99999"},
    {"ARTHUR_ENDPOINT_URL": "https://arthur.invalid:x"},
    {"ARTHUR_ENDPOINT_URL": "ftp://localhost"},
    {"ARTHUR_ENDPOINT_URL": "http://arthur.invalid"},
    {"ARTHUR_ENDPOINT_URL": "unix://relay.sock"},
    {"ARTHUR_ENDPOINT_URL": "unix:///proc/none"},
    {"ARTHUR_ENDPOINT_URL": "unix://{socket}"},
    # Itself.
    {"ARTHUR_ENDPOINT_URL": "unix://{short}/a/../relay.sock"},
    {"ARTHUR_ENDPOINT_URL": "unix://{taken}"},
    {"ARTHUR_ENDPOINT_URL": "http://{free_too}", f"{DAEMON_PREFIX}LISTEN": "{free_too}"},
    {"ARTHUR_ENDPOINT_URL": "http://{free_too}", f"{DAEMON_PREFIX}LISTEN": "127.0.0.2:{free}"},
    {
        "ARTHUR_ENDPOINT_URL": "http://localhost:{free}/api/v3",
        f"{DAEMON_PREFIX}METRICS_LISTEN": "0.0.0.0:{free}",
    },
    {"ARTHUR_ENDPOINT_URL": "http://{used}", f"{DAEMON_PREFIX}LISTEN": "{free_too}"},
    {"ARTHUR_API_KEY": "two\nlines"},
    {"ARTHUR_ORGANIZATION_ID": "\u00fc"},
    {"ARTHUR_API_KEY": "", "ARTHUR_LOGIN": "me"},
    {"HTTPS_PROXY": "socks5://127.0.0.1:1", "ARTHUR_ENDPOINT_URL": "https://arthur.invalid"},
    {"HTTPS_PROXY": "none at all", "ARTHUR_ENDPOINT_URL": "https://arthur.invalid"},
    # Files of dead letters, and the rest.
    {"ARTHUR_RELAY_DEAD_LETTER_FILE": "{here}"},
    {"ARTHUR_RELAY_DEAD_LETTER_FILE": "{here}/none/letters"},
    {"ARTHUR_RELAY_DEAD_LETTER_FILE": "{socket}"},
    {f"{DAEMON_PREFIX}ALLOWED_HOSTS": "a b"},
    {f"{DAEMON_PREFIX}SOCKET_GROUP": "0"},
    {f"{DAEMON_PREFIX}SOCKET_MODE": "9"},
]


@pytest.fixture
def places(sandbox: ArthurSandbox, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What stands in braces in the values."""
    (tmp_path / "file").write_text("neither a directory nor a socket\n")
    (tmp_path / "tokens").write_text("one:token-that-is-long-enough\n")
    with (
        tempfile.TemporaryDirectory(prefix="arthur-") as short,
        socket.socket(socket.AF_UNIX) as taken,
        socket.create_server(("127.0.0.1", 0)) as used,
    ):
        with socket.create_server(("0.0.0.0", 0)) as found:
            free = found.getsockname()[1]
        make_spools(Path(short))
        taken.bind(f"{short}/taken")
        taken.listen()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(f"{short}/stale")
        yield {
            "here": str(tmp_path),
            "tokens": str(tmp_path / "tokens"),
            "taken": f"{short}/taken",
            "stale": f"{short}/stale",
            "socket": f"{short}/relay.sock",
            "short": short,
            "free": str(free),
            "free_too": f"127.0.0.1:{free}",
            "pid": str(os.getpid()),
            "used": f"127.0.0.1:{used.getsockname()[1]}",
            "model": sandbox.model_id,
        }


def make_spools(here: Path) -> None:
    """Make directories in which a start finds something."""
    names = ("there", "lock-is-directory", "lock-is-link", "lock-of-all", "spool-is-directory")
    for name in (*names, "of-all"):
        (here / name).mkdir(mode=0o700)
    (here / "link").symlink_to(here / "there")
    (here / "lock-is-directory" / "daemon.lock").mkdir()
    (here / "lock-is-link" / "daemon.lock").symlink_to(here / "elsewhere")
    (here / "lock-of-all" / "daemon.lock").touch()
    (here / "lock-of-all" / "daemon.lock").chmod(0o666)
    (here / "spool-is-directory" / "0.spool").mkdir()
    (here / "of-all").chmod(0o777)


def put(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], places: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format_map(places))


def starts_handler() -> str:
    """Start as an application does. Returns why it can't, or ""."""
    try:
        handler = ArthurCallbackHandler.from_env()
    except ConfigurationError as error:
        return str(error)
    handler.relay.close(0)
    return ""


def starts_daemon() -> str:
    """Start a daemon, and end it once it runs. Returns why it can't, or ""."""

    async def until_it_runs(found: Configuration) -> None:
        daemon = Daemon(found, load)
        running = asyncio.create_task(daemon.run())
        await turn_until(lambda: running.done() or daemon.phase is Phase.RUNNING)
        running.cancel()
        await running

    try:
        asyncio.run(until_it_runs(load()))
    except ConfigurationError as error:
        return str(error)
    except asyncio.CancelledError:
        return ""
    return ""


def told(output: str, mark: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(f" {mark}  ")]


@pytest.mark.parametrize("variables", APPLICATION, ids=repr)
def test_a_handler(
    run: Run,
    environment: dict[str, str],
    places: dict[str, str],
    variables: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One that is not there is no setting: it is told, and the start goes on.
    monkeypatch.setenv("ARTHUR_RELAY_CONNECT_TIMEOUT_SECONDS", "0.5")
    put(monkeypatch, variables, places)
    before = sorted(Path(places["here"]).rglob("*"))
    result = run("check")
    assert sorted(Path(places["here"]).rglob("*")) == before, "a check changes nothing"
    reason = starts_handler()
    wrong = told(result.output, "✗")
    assert bool(wrong) == bool(reason), (reason, result.output)
    assert result.exit_code == (1 if reason else 0)


@pytest.mark.parametrize("text", TEXTS)
def test_every_setting_of_a_handler(
    run: Run, environment: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in RelaySettings.model_fields:
        variable = ENVIRONMENT_PREFIX + name.upper()
        with monkeypatch.context() as patch:
            patch.setenv(variable, text)
            if name == "spool_dir" and text not in ("/proc/none", "none", ""):
                continue  # a directory of that name, here
            result = run("check")
            reason = starts_handler()
            assert bool(told(result.output, "✗")) == bool(reason), (variable, text, reason)
            assert isinstance(result.exception, SystemExit | None)


@pytest.mark.parametrize("variables", DAEMON, ids=repr)
def test_a_daemon(
    run: Run,
    environment: dict[str, str],
    places: dict[str, str],
    variables: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ARTHUR_MODEL_ID")
    monkeypatch.setenv("ARTHUR_RELAY_CONNECT_TIMEOUT_SECONDS", "0.5")
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", f"{places['here']}/spool")
    monkeypatch.setenv(f"{DAEMON_PREFIX}SOCKET", places["socket"])
    put(monkeypatch, variables, places)
    before = sorted(Path(places["here"]).rglob("*"))
    result = run("check", "--daemon")
    assert sorted(Path(places["here"]).rglob("*")) == before, "a check changes nothing"
    assert not Path(places["socket"]).exists()
    reason = starts_daemon()
    assert (result.exit_code == 2) == bool(reason), (reason, result.output)


@pytest.mark.parametrize("text", TEXTS)
def test_every_setting_of_a_daemon(
    run: Run,
    environment: dict[str, str],
    places: dict[str, str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the start reads; what it does then is in `test_a_daemon`."""
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", f"{places['here']}/spool")
    monkeypatch.setenv(f"{DAEMON_PREFIX}SOCKET", places["socket"])
    names = [DAEMON_PREFIX + name.upper() for name in DaemonSettings.model_fields]
    names += [ENVIRONMENT_PREFIX + name.upper() for name in RelaySettings.model_fields]
    for variable in names:
        with monkeypatch.context() as patch:
            patch.setenv(variable, text)
            result = run("check", "--daemon")
            try:
                load()
                reason = ""
            except ConfigurationError as error:
                reason = str(error)
            settings = [line for line in told(result.output, "✗") if " Settings " in line]
            assert bool(settings) == bool(reason), (variable, text, reason, result.output)


def test_no_check_names_a_variable_that_there_is_not() -> None:
    there_are = {DAEMON_PREFIX + name.upper() for name in DaemonSettings.model_fields}
    there_are |= {ENVIRONMENT_PREFIX + name.upper() for name in RelaySettings.model_fields}
    there_are |= {f"ARTHUR_{name}" for name in ("API_KEY", "LOGIN", "PASSWORD", "MODEL_ID")}
    there_are |= {f"ARTHUR_{name}" for name in ("BASE_URL", "TASK_ID", "ORGANIZATION_ID")}
    there_are |= {"ARTHUR_ENDPOINT_URL", "ARTHUR_ENGINE_API_KEY", "VERIFY_SSL"}
    there_are |= {"LISTEN_FDS", "DAEMON_PREFIX"}
    ours = Path(__file__).parents[2] / "src" / "arthur_relay"
    for path in [*(ours / "cli").glob("check*.py"), ours / "daemon" / "sockets.py"]:
        for text in re.findall(r'"([^"\n]*)"', path.read_text(encoding="utf-8")):
            for word in re.findall(r"\b[A-Z][A-Z_]{4,}\b", text):
                assert word in there_are or "ARTHUR" not in word, (path, word)
            assert not re.search(r"\bset [A-Z_]+", text) or re.search(r"set ARTHUR_", text), text
    assert os.environ.get("ARTHUR_RELAY_SPOOL_DIR") is None
