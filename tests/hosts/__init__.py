# ruff: noqa: E501 - a table's rows can't be broken
"""Forks and hosts: what is promised under each, and the test that proves it.

Everywhere: a child never hangs, sends what it captured itself and nothing of its parent's, over
connections of its own, and both sides agree in the end: what each process says in `stats()` or
`flush()`, and exactly the ids that were captured at the server. With a spool, each process has one
of its own in the directory, and a dead one's is delivered by one that lives.

| host | what is promised | test |
|---|---|---|
| `os.fork` | whatever the parent's threads hold: the registry's lock, the relay's, an answer's, a module's, a redactor's, that of a log handler; while a request is on its way, a name is looked up, rows are compressed, SQLite is in mid-transaction | `test_forks.py` |
| `fork` of libc, behind the hooks' back | the same, but for what only the hooks can mend: the locks of `logging` and of SQLite, if they are held at that moment | `test_forks.py` |
| children of children | ids are given once, open runs belong to who began them | `test_forks.py` |
| multiprocessing: fork, spawn, forkserver | a process flushes when it ends by itself, also in a `Pool`, a `ProcessPoolExecutor`, and when recycled | `test_multiprocessing.py`, tests/process/test_exit.py |
| `Pool.terminate`, `os._exit`, SIGKILL | no exit hook runs: what `flush()` or the spool did not see to is lost | `test_multiprocessing.py`, `test_gunicorn.py` |
| gunicorn, sync, with `--preload` and without | SIGTERM, SIGHUP, `--max-requests`: the worker flushes; its time-out (SIGABRT): it flushes, in the second that gunicorn leaves it; SIGKILL: its spool's rows are delivered by the worker after it | `test_gunicorn.py` |
| gunicorn with uvicorn's workers; uvicorn `--workers` | the lifespan flushes; then the signal ends the process, so without one nothing does | `test_gunicorn.py`, `test_uvicorn.py` |
| uWSGI with its fork hooks called (`--py-call-uwsgi-fork-hooks`), or with `--lazy-apps` | a worker that ends gracefully (SIGHUP) flushes, or by SIGTERM when it is at rest; one that SIGTERM ends in a request runs no exit hooks; nor does the master, so what it logs has to leave while it lives | `test_uwsgi.py` |
| Celery, prefork | a child flushes when it is recycled and at a warm shutdown, though it ends by `os._exit` | `test_celery.py` |
| a worker thread killed by an exception | comes back, and is counted in `stats().worker_restarts`; nothing is lost | `test_deaths.py` |
"""
