"""Builds the Dockerfiles with buildah, and runs them as an engine would: no root, no writing.

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
from .tools import DEPLOY, ROOT, missing, run, tool

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

_BASE = "localhost/base:1"
_PACKAGES = "ca-certificates,python-is-python3,python3-pip,python3-venv"
# What pip is told about the machine's network, if anything.
_PIPS = ("/etc/pip.conf", "/root/.config/pip/pip.conf", "/root/.pip/pip.conf")
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_INSIDE = """
set -e
mount --bind "$ROOT" "$ROOT"
for shown in $SHOWN; do
  mkdir -p "$ROOT${shown#*:}"
  mount --bind "${shown%:*}" "$ROOT${shown#*:}"
done
mount -o remount,ro,bind "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
for volume in $VOLUMES; do
  mount --bind "$STATE$volume" "$ROOT$volume"
done
exec chroot "$ROOT" setpriv --reuid="$USER_ID" --regid="$GROUP_ID" $GROUPS_OPTION --no-new-privs \
  --bounding-set=-all --inh-caps=-all env -i "$@"
"""


class Engine:
    """Builds images, and runs them.

    Args:
        folder: An empty folder for all of it.
    """

    def __init__(self, folder: Path) -> None:
        self._store = ["--root", str(folder / "store"), "--runroot", str(folder / "runroot")]
        self.state = folder / "state"
        self.state.mkdir()
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
        self._buildah("commit", base, _BASE)
        self._buildah("rm", base)

    def build(self, dockerfile: Path, context: Path, name: str, **arguments: str) -> Image:
        """Build an image and mount it."""
        ignored = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
        given = [path for path in (*_PIPS, _CERTIFICATES) if Path(path).is_file()]
        self._buildah(
            "bud",
            "--isolation=chroot",
            "--network=host",
            "--format=docker",
            "--pull-never",
            *(f"--build-arg={key}={value}" for key, value in arguments.items()),
            *([f"--ignorefile={ignored}"] if ignored.exists() else []),
            *(f"--volume={path}:{path}:ro" for path in given),
            f"--file={dockerfile}",
            f"--tag={name}",
            context,
        )
        inspected = json.loads(self._buildah("inspect", "--type=image", name))
        container = self._buildah("from", name)
        root = Path(self._buildah("mount", container))
        return Image(root, inspected["Docker"]["config"], self.state)

    def close(self) -> None:
        """Unmount all; the folder can be removed then."""
        self._buildah("umount", "--all")
        self._buildah("rm", "--all")
        self._buildah("rmi", "--all", "--force")

    def _buildah(self, *arguments: str | Path) -> str:
        return run(
            "buildah", *self._store, *arguments, timeout_seconds=300, errors_apart=True
        ).strip()


class Image:
    """An image that is built and mounted.

    Attributes:
        root: Its files.
        config: What an engine is told: Env, User, Volumes, Entrypoint, Cmd, Healthcheck, ...
        state: Where the volumes of all images are, by their paths.
    """

    def __init__(self, root: Path, config: dict[str, Any], state: Path) -> None:
        self.root = root
        self.config = config
        self.state = state

    @contextmanager
    def running(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        groups: Sequence[int] = (),
        volumes: Collection[str] | None = None,
        shown: Mapping[str, Path] | None = None,
    ) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """Run the entry point with arguments; yields what has started it, and its own process id.

        It is the first of its own process ids, is the image's user with no capability (and with
        the groups that it is given), and can write to the volumes alone, all of the image's unless
        some are named; they keep what is in them. What is shown, by the paths where it sees them,
        are folders of secrets and the like. It is killed at the end, unless it has ended by itself.
        """
        uid, _, gid = self.config["User"].partition(":")
        chosen = self.config["Volumes"] if volumes is None else volumes
        for volume in chosen:
            self._make(self.state / volume.lstrip("/"), int(uid), int(gid))
        inside = {
            "PATH": os.environ["PATH"],
            "ROOT": str(self.root),
            "STATE": str(self.state),
            "USER_ID": uid,
            "GROUP_ID": gid,
            "GROUPS_OPTION": f"--groups={','.join(map(str, groups))}"
            if groups
            else "--clear-groups",
            "SHOWN": " ".join(f"{folder}:{path}" for path, folder in (shown or {}).items()),
            "VOLUMES": " ".join(chosen),
        }
        variables = [*self.config["Env"], *(f"{k}={v}" for k, v in (environment or {}).items())]
        words = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", _INSIDE, "sh", *variables]
        with subprocess.Popen(
            [*words, *self.config["Entrypoint"], *arguments],
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
                # unshare's --kill-child does not outlive the change of the user.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def run(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        groups: Sequence[int] = (),
        volumes: Collection[str] | None = None,
        shown: Mapping[str, Path] | None = None,
    ) -> str:
        """Run the entry point with arguments to its end, which has to be a good one."""
        running = self.running(
            *arguments, environment=environment, groups=groups, volumes=volumes, shown=shown
        )
        with running as (process, _):
            out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out
        return out

    @staticmethod
    def _make(volume: Path, uid: int, gid: int) -> None:
        if not volume.exists():
            volume.mkdir(parents=True)
            os.chown(volume, uid, gid)


def _release() -> str:
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values["VERSION_CODENAME"].strip('"')


@contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """Build and run images in a folder, and leave nothing of it behind."""
    if os.geteuid() != 0:
        missing("images are built by root only")
    for name in ("buildah", "mmdebstrap", "setpriv", "unshare"):
        tool(name)
    folder.mkdir()
    try:
        running = Engine(folder)
        try:
            yield running
        finally:
            running.close()
    finally:
        shutil.rmtree(folder)


def build_relay(engine: Engine) -> Image:
    """Build deploy/Dockerfile."""
    return engine.build(DEPLOY / "Dockerfile", ROOT, "arthur-relay:test", PYTHON=_BASE)


def build_example(engine: Engine) -> Image:
    """Build deploy/example/Dockerfile, on top of the relay's image."""
    folder = DEPLOY / "example"
    return engine.build(folder / "Dockerfile", folder, "example:test", RELAY="arthur-relay:test")
