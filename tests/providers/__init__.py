"""Real provider packages of LangChain against local servers that speak each provider's wire format.

`answers.py` says what a model answers, in no provider's words. Each module of `wire/` turns an answer
into one provider's format, streamed or whole. `server.py` serves them all, `clients.py` makes the
real clients, `forms.py` calls them (invoke, stream, astream, v3 events), `table.py` says what the row
in Arthur must hold, and `page.py` writes that down as `docs/providers.md`.

They run in an environment of their own, `.venv-providers`, which `environment.py` builds.
"""
