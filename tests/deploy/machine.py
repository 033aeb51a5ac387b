"""A machine to install deploy/systemd on: this one's files, and a systemd of its own.

Its root is this machine's, with a layer on top that takes what is written and is gone at the end;
systemd-nspawn boots it, with the network of the test, so that it reaches the test's sandbox. Needs
root.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.waiting import wait_for

from .tools import ROOT, missing, tool

if TYPE_CHECKING:
    from types import TracebackType

_BOOT = """
set -e
mount -t tmpfs -o size=256m,mode=0755 tmpfs "$FOLDER"
mkdir "$FOLDER/written" "$FOLDER/work" "$FOLDER/root"
layers="lowerdir=/,upperdir=$FOLDER/written,workdir=$FOLDER/work"
mount -t overlay -o "$layers" overlay "$FOLDER/root"
cd "$FOLDER/root"
rm -rf etc/systemd/system/*.wants etc/systemd/system/*.requires usr/lib/systemd/system/*.d
mkdir -p "opt/python" "opt/site" "opt/repository" "opt/arthur-relay-0.1.0/bin"
mount --bind -o ro "$PYTHON" opt/python
mount --bind -o ro "$SITE" opt/site
mount --bind -o ro "$REPOSITORY" opt/repository
echo /opt/python/lib > etc/ld.so.conf.d/tests.conf
chroot . ldconfig
# What `python3 -m venv` and pip make, of what the tests run on.
cd opt/arthur-relay-0.1.0
mkdir -p "lib/$VERSION/site-packages"
ln -s "/opt/python/bin/$VERSION" bin/python
echo "home = /opt/python/bin" > pyvenv.cfg
printf '%s\\n' /opt/repository/src /opt/site > "lib/$VERSION/site-packages/tests.pth"
printf '%s\\n' '#!/opt/arthur-relay-0.1.0/bin/python' 'from arthur_relay.cli import main' 'main()' \
  > bin/arthur-relay
chmod 0755 bin/arthur-relay
ln -s arthur-relay-0.1.0 ../arthur-relay
exec systemd-nspawn --quiet --directory="$FOLDER/root" --machine="$NAME" --register=no \
  --keep-unit --resolv-conf=off --timezone=off --console=pipe --boot systemd.unit=basic.target
"""

_SCRIPT_SECONDS = 180
"""Longer than any unit may take to start (TimeoutStartSec=) or to stop (TimeoutStopSec=)."""


class Machine:
    """A machine that is up; gone, with all that runs on it, when its block is left.

    Args:
        folder: An empty folder, for mounts that nobody else sees.
    """

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            missing("a machine is booted by root only")
        for name in ("systemd-nspawn", "nsenter", "unshare"):
            tool(name)
        self._name = f"arthur-relay-{os.getpid()}"
        self._log = folder.with_suffix(".log")
        environment = {
            "PATH": os.environ["PATH"],
            "FOLDER": str(folder),
            "NAME": self._name,
            "PYTHON": sys.base_prefix,
            "REPOSITORY": str(ROOT),
            "SITE": next(path for path in sys.path if path.endswith("site-packages")),
            "VERSION": f"python{sys.version_info.major}.{sys.version_info.minor}",
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _BOOT],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._leader = 0

    def __enter__(self) -> Self:
        try:
            self._leader = wait_for(self._find_leader)
            # Degraded where a unit of the machine's own does not get on in here.
            up = ("running\n", "degraded\n")
            wait_for(lambda: self.run("systemctl is-system-running", check=False) in up)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def run(self, script: str, *, check: bool = True, **environment: str) -> str:
        """Run a shell script on the machine, as root in the repository's copy. Returns its output.

        The test fails when the script does, unless it need not be looked at.
        """
        done = subprocess.run(
            [
                tool("nsenter"),
                f"--target={self._leader}",
                "--mount",
                "--uts",
                "--ipc",
                "--pid",
                "--cgroup",
                "--wdns=/opt/repository",
                "sh",
                "-ec",
                script,
            ],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SCRIPT_SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout

    def path(self, name: str) -> Path:
        """Return where a file of the machine is to be found from here."""
        return Path(f"/proc/{self._leader}/root") / name.lstrip("/")

    def property(self, name: str, unit: str = "arthur-relay.service") -> str:
        """Return a property of a unit, as systemd shows it."""
        return self.run(f"systemctl show --value --property={name} {unit}").strip()

    def journal(self, unit: str = "arthur-relay.service") -> str:
        """Return what a unit has logged; also what it wrote last, which the journal reads later."""
        self.run("journalctl --sync")
        return self.run(f"journalctl --no-pager --output=cat --unit={unit}")

    def _find_leader(self) -> int | None:
        assert self._process.poll() is None, self._log.read_text(encoding="utf-8")
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for child in children:
            with suppress(OSError):
                name = Path(f"/proc/{child}/comm").read_text(encoding="ascii").strip()
                if name == "systemd" and Path(f"/proc/{child}/root/run/systemd/private").exists():
                    return int(child)
        return None

    def _end(self) -> None:
        """Kill the machine's first process, which takes all others with it."""
        with suppress(ProcessLookupError):
            if self._leader:
                os.kill(self._leader, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait(timeout=30)
        with suppress(OSError):  # what nspawn leaves behind when its machine is killed
            Path("/run/systemd/nspawn/propagate", self._name).rmdir()
