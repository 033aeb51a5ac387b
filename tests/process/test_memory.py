"""What waits takes the memory that is accounted for it, and not a multiple of it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox
    from tests.process.scripts import Scripts

CAPTURE = """
import gc, json, random
from pathlib import Path

words = [f"{number:x}" for number in range(70_000)]
draw = random.Random(1)
relay = Relay.from_env(settings=settings)

def capture(count):
    for _ in range(count):
        text = " ".join(draw.choices(words, k=300))
        relay.capture(Inference(input_text=text[:1000], output_text=text[1000:]))

def memory():
    gc.collect()
    status = Path("/proc/self/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0]) * 1024
    return resident, relay.stats().pending_bytes

capture(2_000)
before = memory()
capture(10_000)
after = memory()
print(json.dumps([after[0] - before[0], after[1] - before[1], relay.stats().dropped]))
relay.close(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_waits_takes_what_is_accounted_for_it(
    scripts: Scripts, sandbox: ArthurSandbox
) -> None:
    sandbox.faults.hang(routes=("inferences",))  # not yet known to be away: nothing is compressed
    ended = scripts.run(CAPTURE, cold=True, overflow="block", block_timeout_seconds=30.0)
    assert ended.status == 0, ended.stderr
    resident, accounted, dropped = json.loads(ended.stdout)
    assert dropped == {}
    assert accounted > 15_000_000
    assert resident < 2 * accounted
