"""Real provider packages of LangChain against local servers that speak each provider's wire format.

- `answers.py` says what a model answers, in no provider's words; a prompt is an answer's name.
- Each module of `wire/` turns an answer into one provider's format, streamed or whole, and makes a
  `Wire` of it: routes, the provider's words for the reasons to stop, what an answer says beside.
- `server.py` serves all wires, each at `/<its name>/…`.
- `clients.py` has the real clients (`CLIENTS`), each with the wire it speaks and the answers and
  the ways to call that it has; those of providers with formats of their own are in
  `native_clients.py`. `forms.py` has the ways to call: invoke, stream, v3 events, and others.
- `table.py` derives what the row in Arthur must hold: nothing is typed in for a client.
- `not_handed_over.py` has what LangChain or a client's package loses before a callback could see
  it, with the place in its source. `recorder.py` keeps what LangChain does hand over.
- `test_table.py` holds each cell against a real run: it is right, or LangChain has not handed it
  over, and the table says so. There is no third.
- `page.py` writes the table down as `docs/providers.md`: `python -m tests.providers.page`.

To add a provider: write `wire/<provider>.py` with `WIRE = Wire(name=…, routes=…, finish_reasons=…,
says=…, counts=…)` (`wire.whole`, `wire.server_sent_events` and `wire.arriving` cut connections as
answers ask for it), and a `Client(name=…, package=…, make=…, wire=WIRE, provider=…, answers=…)` in
a list that `CLIENTS` has in it. `make(url, **options)` imports its package when it is called.

They run in an environment of their own, `.venv-providers`, which `environment.py` builds.
"""
