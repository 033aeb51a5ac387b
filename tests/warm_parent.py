"""What `tests/warm.py` runs by `python -c`: imports packages, then forks whenever it is told to.

A child leaves the loop, and goes on to the end of this as its main module.
"""

import gc
import importlib
import io
import json
import os
import select
import socket
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any


def children(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Fork when told to, and say how each child has ended; return what to do, in a child."""
    statuses: dict[int, tuple[int, int]] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready in statuses:
                pid, status = statuses.pop(ready)
                poll.unregister(ready)
                ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.close(ready)
                with suppress(BrokenPipeError):  # who started it does not want to know
                    os.write(status, str(ended).encode())
                os.close(status)
                continue
            message, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 3)
            if not message:
                return None
            pid = os.fork()
            if pid == 0:
                return json.loads(message), descriptors
            status, *others = descriptors
            for descriptor in others:
                os.close(descriptor)
            ending = os.pidfd_open(pid)
            statuses[ending] = (pid, status)
            poll.register(ending, select.POLLIN)
            control.send(str(pid).encode())


def stream(descriptor: int, before: Any) -> io.TextIOWrapper:
    """Open a standard stream as the interpreter does; the one before knows of another file."""
    raw = open(descriptor, "wb", 0 if before.write_through else -1, closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(
        raw,
        before.encoding,
        before.errors,
        newline="\n",
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )


def become(order: dict[str, Any], descriptors: list[int]) -> str:
    """Take the place of a process that has just been started, and return its source."""
    _, stdout, stderr = descriptors
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, 1 + max(int(each.name) for each in Path("/proc/self/fd").iterdir()))
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        opened = stream(descriptor, getattr(sys, name))
        vars(sys).update({name: opened, f"__{name}__": opened})
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["cwd"])
    if order["new_session"]:
        os.setsid()
    if order["strict"]:  # as `-W error` has it
        sys.warnoptions.append("error")
        warnings.simplefilter("error")
    sys.argv[1:] = order["arguments"]
    return str(order["source"])


def run(number: str, *packages: str) -> str | None:
    """Import the packages and be there for the tests; return what a child is to run."""
    for package in packages:
        with suppress(ImportError):
            importlib.import_module(package)
    gc.collect()
    gc.freeze()  # or each child's collections would copy all pages
    control = socket.socket(fileno=int(number))
    found = children(control)
    control.detach()
    return found and become(*found)


text = run(*sys.argv[1:])
if text is not None:
    code = compile(text, "<string>", "exec")
    for each in {*globals()} - {"code", "each"}:
        if not each.startswith("__"):
            del globals()[each]
    del each
    exec(code)
