"""The soak's short form, and that it can fail: damage that is done on purpose is told."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.soak.__main__ import main
from tests.soak.evidence import read_arrivals, read_life
from tests.soak.faults import Kind
from tests.soak.run import Soak
from tests.soak.sabotage import Damage
from tests.soak.verdict import Promise, judge

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.one_python,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

ANY_ROUND = {kind for kind in Kind if kind not in (Kind.NONE, Kind.REFUSING, Kind.MIXED)}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """Run the command; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["soak", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_the_short_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = tmp_path / "soak"
    status = run(
        monkeypatch,
        *("--seconds", "12", "--rate", "200", "--seed", "7", "--output", str(output)),
    )
    report = (output / "report.md").read_text()
    assert status == 0, report
    assert report.startswith("# Soak: kept")
    faults = {arrival.fault for arrival in read_arrivals(output / "server.jsonl")}
    assert faults >= ANY_ROUND
    lives = [read_life(path) for path in sorted(output.glob("life-*.jsonl"))]
    assert [life.stats is not None for life in lives] == [False] * (len(lives) - 1) + [True]
    assert len(lives) >= 2


def test_what_is_broken_on_purpose_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(monkeypatch, "--seconds", "4", "--seed", "7", "--break", *Damage)
    report = capsys.readouterr().out
    assert status == 1
    assert report.startswith("# Soak: NOT kept")
    told = {line for line in report.splitlines() if line.startswith("- **")}
    purposes = report.partition("- On purpose: ")[2].partition(".\n")[0].split(", ")
    done = dict(purpose.split(" ") for purpose in purposes)
    assert told == {
        f"- **{Promise.ARRIVES}: {done[Damage.DROP]}**",
        f"- **{Promise.ONCE}: {done[Damage.DOUBLE]}**",
        f"- **{Promise.SAME_BYTES}: {done[Damage.ALTER]}**",
        f"- **{Promise.NO_STRANGER}: {done[Damage.INVENT]}**",
    }


def test_a_spool_that_loses_rows_is_told(tmp_path: Path) -> None:
    def lose(spool: Path) -> None:
        with closing(sqlite3.connect(spool / "0.spool")) as connection, connection:
            connection.execute("DELETE FROM rows")
            connection.execute("UPDATE held SET rows = 0")

    for seed in range(10):
        directory = tmp_path / str(seed)
        directory.mkdir()
        seen = Soak(directory, 4.0, 200.0, seed, on_kill=lose).run()
        left = {row_id for kill in seen.kills for row_id in kill.left}
        arrived = {row_id for arrival in seen.arrivals for row_id, _ in arrival.stored_rows()}
        if lost := left - arrived:
            break  # else it was killed when there was nothing to lose
    assert lost
    assert set(judge(seen).broken[Promise.ARRIVES]) == lost
