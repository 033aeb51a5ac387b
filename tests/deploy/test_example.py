"""deploy/example: the application runs, and what it asks arrives."""

from __future__ import annotations

import os
import subprocess
import sys

from arthur_relay.sandbox import ArthurSandbox

from .tools import DEPLOY

APPLICATION = DEPLOY / "example" / "application.py"


def test_it_sends_to_arthur_itself_as_well(sandbox: ArthurSandbox) -> None:
    environment = {**os.environ, **sandbox.environment()}
    environment |= {"EXAMPLE_PAUSE_SECONDS": "0.01", "EXAMPLE_QUESTIONS": "3"}
    done = subprocess.run(
        [sys.executable, APPLICATION],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(sandbox.inferences) == 3
    assert "delivered=3" in done.stderr


def test_its_key_for_the_sandbox_is_the_sandboxs(sandbox: ArthurSandbox) -> None:
    key = (DEPLOY / "example" / "sandbox-api-key").read_text(encoding="ascii")
    assert key.strip() == sandbox.api_key
