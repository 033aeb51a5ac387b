"""deploy/arthur-relay-daemon.env: it names every setting that means something to the daemon."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from arthur_relay.daemon.configuration import load
from arthur_relay.daemon.settings import DAEMON_PREFIX, DaemonSettings
from arthur_relay.settings import ENVIRONMENT_PREFIX, RelaySettings

from .tools import DEPLOY

TEMPLATE = DEPLOY / "arthur-relay-daemon.env"
# Settings that look into inferences or belong to the process that captures them.
OF_APPLICATIONS = {
    "block_timeout_seconds",
    "connect",
    "disabled",
    "flush_on_sigterm",
    "hide_inputs",
    "hide_outputs",
    "max_open_runs",
    "max_text_bytes",
    "on_dead_letter",
    "overflow",
    "redact",
    "run_max_age_seconds",
    "sample_rate",
    "trace",
}
# What a service should have, other than the default.
CHOSEN = {
    f"{DAEMON_PREFIX}METRICS_LISTEN": "127.0.0.1:9464",
    f"{ENVIRONMENT_PREFIX}SHUTDOWN_TIMEOUT_SECONDS": "20",
    f"{ENVIRONMENT_PREFIX}SPOOL_DIR": "/var/lib/arthur-relay",
}
HEAD = """\
# The environment of the daemon: a template. For `arthur-relay serve --env-file` (systemd's unit
# reads it from /etc/arthur-relay/arthur-relay.env), or docker's --env-file.
# What is commented out is the default.

# Arthur Scope. The key is best in a file of its own: the unit hands the daemon
# /etc/arthur-relay/arthur-api-key; elsewhere name the file here. Or a login, and a file with its
# password.
ARTHUR_ENDPOINT_URL=https://app.arthur.ai
#ARTHUR_API_KEY_FILE=
#ARTHUR_LOGIN=
#ARTHUR_PASSWORD_FILE=
#ARTHUR_ORGANIZATION_ID=
#VERIFY_SSL=true
# Or Arthur Engine, with a key: its address. For both products, the Engine's key is in a second
# file; applications name their tasks.
#ARTHUR_BASE_URL=
#ARTHUR_ENGINE_API_KEY_FILE=
"""


def daemon_environment_file() -> str:
    """Return the template, as it has to be."""
    lines = [HEAD, "# The daemon."]
    for name, field in DaemonSettings.model_fields.items():
        lines += _setting(
            DAEMON_PREFIX, name, field.description, DaemonSettings.shown_default(name)
        )
    lines += ["", "# The pipeline behind it."]
    for name, field in RelaySettings.model_fields.items():
        if name not in OF_APPLICATIONS:
            default = getattr(field.default, "value", str(field.default).lower())
            lines += _setting(ENVIRONMENT_PREFIX, name, field.description, default)
    return "\n".join(lines) + "\n"


def _setting(prefix: str, name: str, description: str | None, default: str) -> list[str]:
    variable = prefix + name.upper()
    value = CHOSEN.get(variable)
    line = f"#{variable}={default}" if value is None else f"{variable}={value}"
    return ["", f"# {description}", line]


def test_the_template_names_every_setting() -> None:
    found = TEMPLATE.read_text(encoding="utf-8")
    assert found == daemon_environment_file(), "replace the file by daemon_environment_file()"


def test_what_is_left_out_exists() -> None:
    assert set(RelaySettings.model_fields) >= OF_APPLICATIONS


def test_the_daemon_takes_it(tmp_path: Path) -> None:
    """With every line switched on, but for those that name what is not there."""
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines()
    (tmp_path / "key").write_text("key\n", encoding="ascii")
    switched = [
        line.removeprefix("#")
        for line in lines
        if line.startswith("#") and "=" in line.split(" ")[0] and not line.endswith("=")
    ]
    path = tmp_path / "daemon.env"
    text = "\n".join([*lines, *switched, f"ARTHUR_API_KEY_FILE={tmp_path / 'key'}"])
    path.write_text(text, encoding="utf-8")
    with mock.patch.dict(os.environ, clear=True):
        found = load(path)
        assert str(found.relay.spool_dir) == "/var/lib/arthur-relay"
        assert found.daemon.metrics_listen == "127.0.0.1:9464"
        assert found.daemon.listen is None
        assert found.products[0].credentials.api_key == "key"
