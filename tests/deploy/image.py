"""Builds deploy/Dockerfile with buildah, and runs it as an engine would: no root, no writing.

The base is not the one that the Dockerfile names, since no registry of images can be reached from
everywhere that tests run: it is a Debian of the machine's own release with that one's Python.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .processes import child_of
from .tools import DEPLOY, ROOT, run, tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PACKAGES = "ca-certificates,python-is-python3,python3-pip,python3-venv"
# What pip is told about the machine's network, if anything.
_PIPS = ("/etc/pip.conf", "/root/.config/pip/pip.conf", "/root/.pip/pip.conf")
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_INSIDE = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -o remount,ro,bind "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
for volume in $VOLUMES; do
  mkdir -p "$STATE$volume"
  chown "$USER_GROUP" "$STATE$volume"
  mount --bind "$STATE$volume" "$ROOT$volume"
done
exec chroot "$ROOT" setpriv --reuid="${USER_GROUP%:*}" --regid="${USER_GROUP#*:}" --clear-groups \
  --no-new-privs --bounding-set=-all --inh-caps=-all env -i "$@"
"""


class Image:
    """The built image, mounted.

    Attributes:
        root: Its files.
        state: Where its volumes are, by their paths.
        config: What an engine is told: Env, User, Volumes, Entrypoint, Cmd, Healthcheck, …
    """

    def __init__(self, folder: Path) -> None:
        self._store = ["--root", str(folder / "store"), "--runroot", str(folder / "runroot")]
        archive = folder / "base.tar"
        run(
            "mmdebstrap",
            "--quiet",
            "--variant=apt",
            f"--include={_PACKAGES}",
            '--customize-hook=rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
            _release(),
            archive,
            timeout_seconds=300,
        )
        base = self._buildah("from", "scratch")
        self._buildah("add", base, archive, "/")
        archive.unlink()
        self._buildah("commit", base, "localhost/base:1")
        self._buildah("rm", base)
        given = [path for path in (*_PIPS, _CERTIFICATES) if Path(path).is_file()]
        self._buildah(
            "bud",
            "--isolation=chroot",
            "--network=host",
            "--format=docker",
            "--pull-never",
            "--build-arg=PYTHON=localhost/base:1",
            f"--ignorefile={DEPLOY / 'Dockerfile.dockerignore'}",
            *(f"--volume={path}:{path}:ro" for path in given),
            f"--file={DEPLOY / 'Dockerfile'}",
            "--tag=arthur-relay:test",
            ROOT,
        )
        inspected = json.loads(self._buildah("inspect", "--type=image", "arthur-relay:test"))
        self.config: dict[str, Any] = inspected["Docker"]["config"]
        container = self._buildah("from", "arthur-relay:test")
        self.root = Path(self._buildah("mount", container))
        self.state = folder / "state"

    def close(self) -> None:
        """Unmount it; the folder can be removed then."""
        self._buildah("umount", "--all")
        self._buildah("rm", "--all")
        self._buildah("rmi", "--all", "--force")

    @contextmanager
    def running(
        self, *arguments: str, **environment: str
    ) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """Run the entry point with arguments; yields what has started it, and its own process id.

        It is the first of its own process ids, is the image's user with no capability, and can
        write to the volumes alone, which keep what is in them from one run to the next. It is
        killed at the end, unless it has ended by itself.
        """
        words, inside = self._command(arguments, environment)
        with subprocess.Popen(
            words,
            env=inside,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            pid = child_of(process.pid)
            try:
                yield process, pid
            finally:
                # --kill-child does not outlive the change of the user.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the entry point with arguments to its end."""
        words, inside = self._command(arguments, environment)
        return subprocess.run(
            words,
            env=inside,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _command(
        self, arguments: Sequence[str], environment: dict[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        variables = [*self.config["Env"], *(f"{k}={v}" for k, v in environment.items())]
        inside = {
            "PATH": os.environ["PATH"],
            "ROOT": str(self.root),
            "STATE": str(self.state),
            "USER_GROUP": self.config["User"],
            "VOLUMES": " ".join(self.config["Volumes"]),
        }
        words = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", _INSIDE, "sh"]
        return [*words, *variables, *self.config["Entrypoint"], *arguments], inside

    def _buildah(self, *arguments: str | Path) -> str:
        return run(
            "buildah", *self._store, *arguments, timeout_seconds=300, errors_apart=True
        ).strip()


def _release() -> str:
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values["VERSION_CODENAME"].strip('"')


@contextmanager
def built(folder: Path) -> Iterator[Image]:
    """Build the image in a folder, and leave nothing of it behind."""
    for name in ("buildah", "mmdebstrap", "setpriv", "unshare"):
        tool(name)
    folder.mkdir()
    try:
        image = Image(folder)
        try:
            yield image
        finally:
            image.close()
    finally:
        shutil.rmtree(folder)
