"""The recipes of docs/hosts.md, as the tests of this folder run them: as they are written there."""

from __future__ import annotations

import configparser
import shlex
import sys
from typing import TYPE_CHECKING

from tests.readme import command, example

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MODULES = {
    "llm.py": example("application", "docs/hosts.md"),
    "asgi.py": example("fastapi", "docs/hosts.md"),
    "wsgi.py": example("wsgi", "docs/hosts.md"),
    "tasks.py": example("celery", "docs/hosts.md"),
}

COMMANDS = {
    "uvicorn": command("uvicorn", "docs/hosts.md"),
    "gunicorn": command("gunicorn", "docs/hosts.md"),
    "gunicorn with uvicorn": command("gunicorn with uvicorn", "docs/hosts.md"),
    "gevent": command("gevent", "docs/hosts.md"),
    "celery": command("celery", "docs/hosts.md"),
}

HOSTED = {
    "asgi:app": "tests.hosts.asgi:application",
    "wsgi:application": "tests.hosts.wsgi:application",
    "--app=tasks": "--app=tests.hosts.tasks:application",
}
"""What stands around the recipes' applications here: it says what became of what they logged."""


def write_modules(directory: Path) -> None:
    """Write the modules that the recipes share to where their programs run."""
    for name, text in MODULES.items():
        assert text.startswith(f"# {name}\n"), f"docs/hosts.md names another file than {name}"
        (directory / name).write_text(text, encoding="utf-8")


def program(name: str, *options: str) -> list[str]:
    """Return the command of a host, around the hosted application and with more options."""
    module, *words = shlex.split(COMMANDS[name])
    assert len(set(words) & HOSTED.keys()) == 1
    return [sys.executable, "-m", module, *(HOSTED.get(word, word) for word in words), *options]


def uwsgi(others: Mapping[str, str | None]) -> list[str]:
    """Return the options of uWSGI, around the hosted application; of others None leaves one out."""
    read = configparser.ConfigParser(interpolation=None)
    read.read_string(example("uwsgi", "docs/hosts.md"))
    options: dict[str, str | None] = dict(read["uwsgi"])
    options |= {"http-socket": "127.0.0.1:0", "module": HOSTED[str(options["module"])], **others}
    return [
        f"--{name}" if value == "true" else f"--{name}={value}"
        for name, value in options.items()
        if value is not None
    ]
