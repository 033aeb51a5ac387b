"""What tests need of the system that they run on; elsewhere they are skipped, with the reason."""

from __future__ import annotations

import os
import signal

import pytest

from arthur_relay.system.operating_system import (
    CAN_MOVE_OPEN_FILES,
    HAS_DATA_LOCKS,
    HAS_FORKS,
    HAS_OWNERS,
    HAS_UNIX_SOCKETS,
    our_user,
)

data_locks = pytest.mark.skipif(
    not HAS_DATA_LOCKS, reason="here a lock of an open file ends when another is closed, or moves"
)
forks = pytest.mark.skipif(not HAS_FORKS, reason="this system has no forks")
open_files = pytest.mark.skipif(
    not os.path.exists("/proc/self/fd"),  # noqa: PTH110 - no more is asked of it
    reason="this system does not list the files that a process has open",
)
owners = pytest.mark.skipif(not HAS_OWNERS, reason="files have no owners here, and no mode bits")
root = pytest.mark.skipif(
    not HAS_OWNERS or our_user() != 0, reason="only root can be somebody else, and give files away"
)
no_root = pytest.mark.skipif(
    not HAS_OWNERS or our_user() == 0, reason="root may write anywhere, and so may who owns nothing"
)
pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
movable_files = pytest.mark.skipif(
    not CAN_MOVE_OPEN_FILES, reason="nobody can rename or delete a file here that another has open"
)
signals = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no signal is free for a test")
unix_sockets = pytest.mark.skipif(not HAS_UNIX_SOCKETS, reason="this system has no Unix sockets")
