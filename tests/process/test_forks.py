"""A forked child sends its own and not its parent's, and children deliver when they end."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox
    from tests.process.scripts import Scripts


def test_forked_children_send_their_own_and_not_their_parents(
    scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    ended = scripts.run(
        """
        relay = Relay.from_env(settings=settings)
        def log(name):
            relay.capture(Inference(input_text=name, output_text="answer", inference_id=name))
        log("parent before")
        pid = os.fork()
        if pid == 0:
            log("child")
            result = relay.flush(30)
            assert (result.delivered, result.pending) == (1, 0), result
            os._exit(0)
        log("parent after")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """
    )
    assert ended.status == 0, ended.stderr
    ids = sorted(row["partner_inference_id"] for row in sandbox.inferences)
    assert ids == ["child", "parent after", "parent before"]
    assert sandbox.duplicates == 0


MULTIPROCESSING = """
import multiprocessing, os
from arthur_relay import Inference, Relay, RelaySettings

settings = RelaySettings(flush_interval_seconds=3600, connect="lazy")

def work(name):
    relay = Relay.from_env(settings=settings)
    relay.capture(Inference(input_text=name, output_text="answer", inference_id=name))

def work_with(relay_name):
    shared.capture(Inference(input_text="x", output_text="answer", inference_id="inherited"))

if __name__ == "__main__":
    context = multiprocessing.get_context("{method}")
    shared = Relay.from_env(settings=settings)
    shared.capture(Inference(input_text="x", output_text="answer", inference_id="parent"))
    targets = [(work, "child")] + [(work_with, "")] * ("{method}" == "fork")
    for target, name in targets:
        process = context.Process(target=target, args=(name,))
        process.start()
        process.join()
        assert process.exitcode == 0
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_deliver_when_they_end(
    method: str, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    # They run no `atexit` callbacks.
    script = tmp_path / "script.py"
    script.write_text(MULTIPROCESSING.replace("{method}", method), encoding="utf-8")
    environment = {
        # Without coverage, whose lock may be held at a fork: see tests/hosts/programs.py.
        **{k: v for k, v in os.environ.items() if not k.startswith(("ARTHUR", "COVERAGE_PROCESS"))},
        **sandbox.environment(),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    ended = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    ids = sorted(row["partner_inference_id"] for row in sandbox.inferences)
    assert ids == ["child"] + ["inherited"] * (method == "fork") + ["parent"]
