"""The spool in real processes: killed, out of time, started while Arthur is away, forked."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from arthur_relay.delivery.batching import SET_ASIDE

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox
    from tests.process.scripts import Ended, Scripts

COUNT = 50

CAPTURE = f"""
relay = Relay.from_env(settings=settings)
def capture(first, count={COUNT}):
    for number in range(first, first + count):
        relay.capture(Inference(input_text="prompt", output_text="a", inference_id=f"i{{number}}"))
"""

SAFE = """
def wait_until_safe(count):
    while relay.stats().spooled < count:
        threading.Event().wait(0.01)
"""

DELIVER = """
while relay.stats().pending:
    relay.flush()
    threading.Event().wait(0.01)
result = relay.close()
print(result.delivered, result.pending, dict(result.dropped))
"""


def arrived(sandbox: ArthurSandbox) -> list[str]:
    return sorted(row["partner_inference_id"] for row in sandbox.inferences)


def names(*numbers: int) -> list[str]:
    return sorted(f"i{number}" for number in numbers)


@pytest.fixture
def spool(tmp_path: Path) -> str:
    return str(tmp_path / "spool")


def deliver(scripts: Scripts, spool: str, body: str = "") -> Ended:
    ended = scripts.run(CAPTURE + body + DELIVER, spool_dir=spool)
    assert ended.status == 0, ended.stderr
    return ended


@pytest.mark.parametrize("durability", ["process", "power"])
def test_what_was_written_survives_kill_9(
    durability: str, scripts: Scripts, sandbox: ArthurSandbox, spool: str
) -> None:
    script = scripts.start(
        CAPTURE + SAFE + f"capture(0); wait_until_safe({COUNT}); ready_for_a_signal()",
        cold=durability == "power",
        spool_dir=spool,
        durability=durability,
    )
    script.wait_until_ready()
    script.signal(signal.SIGKILL)
    assert script.end().status == -signal.SIGKILL
    assert arrived(sandbox) == []
    ended = deliver(scripts, spool, "capture(1000)\n")
    assert ended.stdout.strip() == f"{2 * COUNT} 0 {{}}"
    assert arrived(sandbox) == names(*range(COUNT), *range(1000, 1000 + COUNT))


@pytest.mark.parametrize("overflow", ["drop_oldest", "spill"])
def test_kill_9_loses_what_waits_in_memory(
    overflow: str, scripts: Scripts, sandbox: ArthurSandbox, spool: str
) -> None:
    settings: dict[str, object] = {"overflow": overflow}
    if overflow == "spill":
        settings["spool_dir"] = spool
    script = scripts.start(
        CAPTURE
        + "capture(0)\n"
        + "intake = relay._host.pipeline.worker.buffer.intake\n"
        + f"while intake.rows < {COUNT}: threading.Event().wait(0.01)\n"
        + "assert relay.stats().spooled == 0\n"
        + "ready_for_a_signal()",
        environment=None,
        cold=False,
        **settings,
    )
    script.wait_until_ready()
    script.signal(signal.SIGKILL)
    assert script.end().status == -signal.SIGKILL
    ended = deliver(scripts, spool, "capture(1000)\n")
    assert ended.stdout.strip() == f"{COUNT} 0 {{}}"
    assert arrived(sandbox) == names(*range(1000, 1000 + COUNT))


def test_ground_truth_and_dead_letters_survive_kill_9(
    scripts: Scripts, sandbox: ArthurSandbox, spool: str
) -> None:
    sandbox.faults.fail_rows(containing="i7", status=400, routes=("inferences",))
    script = scripts.start(
        CAPTURE
        + SAFE
        + "capture(0, 10)\n"
        + "for number in range(10):\n"
        + "    relay.log_ground_truth(f'i{number}', {'thumbs_up': number % 2 == 0})\n"
        + "wait_until_safe(20); ready_for_a_signal()",
        spool_dir=spool,
    )
    script.wait_until_ready()
    script.signal(signal.SIGKILL)
    script.end()
    ended = scripts.run(
        CAPTURE
        + "while relay.stats().pending > 1:\n"  # the ground truth of i7 goes on waiting for that
        + "    relay.flush(1); threading.Event().wait(0.01)\n"
        + "print(relay.close().pending, [each.inference_id for each in relay.dead_letters()])",
        spool_dir=spool,
    )
    assert ended.status == 0, ended.stderr
    found = {
        row["partner_inference_id"]: row["ground_truth_data"]["thumbs_up"]
        for row in sandbox.inferences
    }
    assert found == {f"i{number}": number % 2 == 0 for number in range(10) if number != 7}
    assert ended.stdout.strip() == "1 ['i7']"


def test_an_end_between_a_rejection_and_its_letter_loses_neither(
    scripts: Scripts, sandbox: ArthurSandbox, spool: str
) -> None:
    """The process ends at the moment when the letter was to be written."""
    sandbox.faults.fail_rows(containing="i7", status=400, routes=("inferences",))
    ended = scripts.run(
        CAPTURE
        + "from arthur_relay.dead_letters.sqlite import SqliteStore\n"
        + "SqliteStore.add = lambda self, letters: os._exit(9)\n"
        + "capture(0, 10)\n"
        + "relay.flush(30)",
        spool_dir=spool,
    )
    assert ended.status == 9, ended.stderr
    ended = scripts.run(
        CAPTURE
        + "while relay.stats().pending:\n"
        + "    relay.flush(1); threading.Event().wait(0.01)\n"
        + "print(relay.close().rejected, [each.inference_id for each in relay.dead_letters()])",
        spool_dir=spool,
    )
    assert ended.status == 0, ended.stderr
    assert ended.stdout.strip() == "1 ['i7']"
    assert set(arrived(sandbox)) == set(names(0, 1, 2, 3, 4, 5, 6, 8, 9))


KILL = """
import signal
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def killing_before(owner, name, when=lambda *_, **__: True):
    call = getattr(owner, name)
    def wrapped(*arguments, **named):
        if when(*arguments, **named):
            kill()
        return call(*arguments, **named)
    setattr(owner, name, wrapped)
def killing_after(owner, name, when=lambda *_, **__: True):
    call = getattr(owner, name)
    def wrapped(*arguments, **named):
        result = call(*arguments, **named)
        if when(*arguments, **named):
            kill()
        return result
    setattr(owner, name, wrapped)
from arthur_relay.buffers.spool.buffer import Spool
from arthur_relay.buffers.spool.sqlite_file import SpoolFile
from arthur_relay.buffers.spool.storage import Storage
from arthur_relay.buffers.spool.segment import Segment
from arthur_relay.dead_letters.sqlite import SqliteStore
has_let_go = []
killing_row_gone = lambda self, fresh, gone, *_, **__: bool(has_let_go and gone)
let_go = Segment.let_go
def letting_go(self, seq):
    let_go(self, seq)
    has_let_go.append(seq)
Segment.let_go = letting_go
"""

STEPS = {
    "before the letter is written": "killing_before(SqliteStore, '_add')",
    "before the letter is committed": "killing_before(SqliteStore, '_evict')",
    "after the letter is committed": "killing_after(SqliteStore, '_add')",
    "before the row is let go": "killing_before(Spool, 'let_go', lambda self, rows: rows)",
    "after the row is let go": "killing_after(Spool, 'let_go', lambda self, rows: rows)",
    "before the row is deleted": "killing_before(SpoolFile, 'write', killing_row_gone)",
    "before the spool is committed": "killing_before(Storage, 'write', lambda *_, **k: has_let_go)",
    "after the row is deleted": "killing_after(SpoolFile, 'write', killing_row_gone)",
}


@pytest.mark.parametrize("step", STEPS)
def test_kill_9_at_any_step_between_a_letter_and_its_row_loses_neither(
    step: str, scripts: Scripts, sandbox: ArthurSandbox, spool: str
) -> None:
    sandbox.faults.fail_rows(containing="i7", status=400, routes=("inferences",))
    ended = scripts.run(
        CAPTURE + KILL + STEPS[step] + "\ncapture(0, 10)\nrelay.flush(30)\nrelay.close()",
        spool_dir=spool,
    )
    assert ended.status == -signal.SIGKILL, ended.stderr
    ended = scripts.run(
        CAPTURE
        + "while relay.stats().pending:\n"
        + "    relay.flush(1); threading.Event().wait(0.01)\n"
        + "print(relay.close().rejected, *[each.inference_id for each in relay.dead_letters()])",
        spool_dir=spool,
    )
    assert ended.status == 0, ended.stderr
    again, *letters = ended.stdout.split()
    # The letter is there, and the row was rejected once more only where it was still there.
    was_written = not step.startswith("before the letter")
    assert letters == ["i7"] * (int(again) + was_written)
    assert int(again) == (step != "after the row is deleted")
    assert set(arrived(sandbox)) == set(names(0, 1, 2, 3, 4, 5, 6, 8, 9))


CUT = """
import signal
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.row import Attempt, Failure, Outcome, Verdict
deliver = ScopeDestination.deliver
async def delivering(self, batch):
    if any(row.id == "i7" for row in batch.rows):
        outcome = Outcome(Verdict.REJECTED, "http 413", 413)
        return Attempt((outcome,) * len(batch.rows), Failure.TOO_LARGE, "http 413")
    return await deliver(self, batch)
ScopeDestination.deliver = delivering
class Killing:
    def shrink(self, row):
        os.kill(os.getpid(), signal.SIGKILL)
relay._host.pipeline.worker.sender.outcomes.shrinker = Killing()
"""


def test_a_row_that_two_processes_were_killed_of_while_they_cut_it_is_set_aside(
    scripts: Scripts, sandbox: ArthurSandbox, spool: str
) -> None:
    """As where it takes more memory than there is: no process can say so any more."""
    go_on = "relay.flush(60)\n"  # which waits for what an earlier process left
    first = scripts.run(CAPTURE + CUT + "capture(0, 10)\n" + go_on, spool_dir=spool)
    assert first.status == -signal.SIGKILL, first.stderr
    second = scripts.run(CAPTURE + CUT + go_on, spool_dir=spool)
    assert second.status == -signal.SIGKILL, second.stderr
    third = scripts.run(
        CAPTURE
        + CUT
        + go_on
        + "print([(each.inference_id, each.reason) for each in relay.dead_letters()])\n"
        + "print(relay.close().rejected)",
        spool_dir=spool,
    )
    assert third.status == 0, third.stderr
    assert third.stdout.splitlines() == [f"[('i7', '{SET_ASIDE}')]", "1"]
    assert set(arrived(sandbox)) == set(names(0, 1, 2, 3, 4, 5, 6, 8, 9))


def test_what_is_left_at_the_deadline_stays_in_the_spool(
    scripts: Scripts, sandbox: ArthurSandbox, spool: str
) -> None:
    sandbox.faults.hang(routes=("inferences",))
    ended = scripts.run(CAPTURE + "capture(0)", spool_dir=spool, shutdown_timeout_seconds=0.5)
    assert ended.status == 0
    assert f"{COUNT} inferences stay in the spool" in ended.stderr
    sandbox.faults.reset()
    deliver(scripts, spool)
    assert set(arrived(sandbox)) == set(names(*range(COUNT)))


def test_a_start_while_arthur_is_away_knows_the_model(
    scripts: Scripts, sandbox: ArthurSandbox, spool: str
) -> None:
    deliver(scripts, spool, "capture(0)\n")
    sandbox.go_away()
    ended = scripts.run(
        CAPTURE + SAFE + f"capture(100); wait_until_safe({COUNT}); os._exit(0)", spool_dir=spool
    )
    assert ended.status == 0, ended.stderr
    sandbox.come_back()
    deliver(scripts, spool)
    assert arrived(sandbox) == names(*range(COUNT), *range(100, 100 + COUNT))


def test_a_forked_child_has_a_spool_of_its_own(
    scripts: Scripts, sandbox: ArthurSandbox, spool: str
) -> None:
    fork = f"""
capture(0)
wait_until_safe({COUNT})
child = os.fork()
if not child:
    capture(100)
    result = relay.close()
    os._exit(0 if result.delivered == {COUNT} and result.pending == 0 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert relay.stats().delivered == 0
"""
    ended = deliver(scripts, spool, SAFE + fork)
    assert ended.stdout.strip() == f"{COUNT} 0 {{}}"
    assert arrived(sandbox) == names(*range(COUNT), *range(100, 100 + COUNT))


def test_what_a_killed_process_left_is_delivered_by_its_neighbour(
    scripts: Scripts, sandbox: ArthurSandbox, spool: str
) -> None:
    neighbour = scripts.start(CAPTURE + "ready_for_a_signal()", spool_dir=spool)
    neighbour.wait_until_ready()
    script = scripts.start(
        CAPTURE + SAFE + f"capture(0); wait_until_safe({COUNT}); ready_for_a_signal()",
        spool_dir=spool,
    )
    script.wait_until_ready()
    script.signal(signal.SIGKILL)
    script.end()
    deliver(scripts, spool)  # as a third one: what is left is taken at the start
    assert arrived(sandbox) == names(*range(COUNT))


def test_rows_that_were_removed_by_hand_do_not_wait_for_ever(
    scripts: Scripts, sandbox: ArthurSandbox, spool: str
) -> None:
    deliver(scripts, spool, "capture(0, 1)\n")
    sandbox.go_away()
    ended = scripts.run(CAPTURE + "capture(0)", spool_dir=spool, shutdown_timeout_seconds=0.5)
    assert f"{COUNT} inferences stay in the spool" in ended.stderr
    with closing(sqlite3.connect(f"{spool}/0.spool")) as connection, connection:
        connection.execute("DELETE FROM rows WHERE id IN ('i3', 'i4')")
    sandbox.come_back()
    ended = deliver(scripts, spool)
    assert ended.stdout.strip() == f"{COUNT - 2} 0 {{'lost_in_spool': 2}}"
    assert "2 inferences are not in the spool file" in ended.stderr


@pytest.mark.parametrize("overflow", ["drop_oldest", "spill"])
def test_a_spool_that_goes_away_is_told_of_and_delivery_goes_on(
    overflow: str, scripts: Scripts, sandbox: ArthurSandbox, spool: str
) -> None:
    body = """
import shutil
capture(0, 5)
relay.flush()
assert relay.health().status == "ok", relay.health()
shutil.rmtree(SPOOL)
health = relay.health()
assert health.status == "failing" and "The spool can't keep rows" in health.detail, health
capture(5, 5)
relay.flush()
assert relay.stats().spooled == 0
"""
    ended = scripts.run(
        CAPTURE + body.replace("SPOOL", repr(spool)) + DELIVER, spool_dir=spool, overflow=overflow
    )
    assert ended.stdout.strip() == "10 0 {}", ended.stderr
    assert arrived(sandbox) == names(*range(10))


def test_a_spool_that_cannot_be_used_is_one_clear_error(scripts: Scripts, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = scripts.run(CAPTURE, spool_dir=str(tmp_path / "file"))
    assert ended.status == 1
    assert ended.stderr.splitlines()[-1].startswith("arthur_relay.errors.SpoolError: spool_dir")
