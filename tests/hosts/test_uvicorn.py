"""uvicorn with several workers: processes of `multiprocessing`, spawned, that a signal ends."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.hosts import recipes
from tests.hosts.notes import Notes, log_in

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox
    from tests.hosts.programs import Programs


def test_workers_flush_by_their_lifespan_and_have_spools_of_their_own(
    programs: Programs, notes: Notes, sandbox: ArthurSandbox
) -> None:
    spool = notes.directory / "spool"
    program = programs.start(
        *recipes.program("uvicorn", "--port=0"),
        ARTHUR_RELAY_SPOOL_DIR=str(spool),
    )
    program.wait_for(r"(?s)(startup complete.*){2}")
    port = program.wait_for(r"running on http://127.0.0.1:(\d+)")[1]
    workers = log_in(port, 2)
    assert len(list(spool.glob("*.lock"))) == 2
    program.signal(signal.SIGTERM)
    assert program.end().status == 0, program.printed
    assert notes.captured().keys() == {str(pid) for pid in workers}
    notes.check(sandbox)
