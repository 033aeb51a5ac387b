"""The gate that keeps forks and SQLite apart, and locks that a child does not inherit."""

from __future__ import annotations

import os
import threading

import pytest

from arthur_relay.system.fork_safety import ForkGate, ProcessLock


def test_a_fork_waits_until_the_gate_is_open() -> None:
    gate = ForkGate(wait_seconds=30)
    steps: list[str] = []
    inside, done = threading.Event(), threading.Event()

    def fork() -> None:
        assert inside.wait(30)
        gate.before()
        steps.append("fork")
        gate.in_parent()
        done.set()

    thread = threading.Thread(target=fork)
    thread.start()
    with gate.shut():
        inside.set()
        assert not done.wait(0.05)
        steps.append("open")
    thread.join(30)
    assert steps == ["open", "fork"]


def test_a_fork_does_not_wait_for_ever() -> None:
    gate = ForkGate(wait_seconds=0.01)
    with gate.shut():

        def fork() -> None:
            gate.before()
            gate.in_parent()

        thread = threading.Thread(target=fork)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    with gate.shut():
        pass  # nothing was released that others held


def test_who_has_it_shut_may_fork_and_shut_it_again() -> None:
    gate = ForkGate(wait_seconds=30)
    with gate.shut(), gate.shut():
        gate.before()
        gate.in_parent()


def test_a_lock_is_not_held_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = ProcessLock()
    with lock.mine():
        monkeypatch.setattr(os, "getpid", lambda: -1)
        acquired: list[bool] = []
        thread = threading.Thread(target=lambda: acquired.append(lock.mine().acquire(timeout=0)))
        thread.start()
        thread.join(30)
        monkeypatch.undo()
    assert acquired == [True]
