"""The HTTP server that the daemon and the sandbox use; it knows neither of them.

It is uvicorn's, with bounds and an accept loop of its own, which need uvicorn's internals. This is
the list of all that it uses beside the documented `uvicorn.Config`. `test_versions.py` checks it
against the installed uvicorn, and the range in `pyproject.toml` against the versions that the tests
run with.

`framing` and `connection` override these methods of
`uvicorn.protocols.http.httptools_impl.HttpToolsProtocol`:

- `__init__`: a connection has options, and state of its own
- `connection_made`, `connection_lost`: who is connected is decided and counted by an `Admission`
- `data_received`, `eof_received`: uvicorn parses all that comes, and drops what a client that half
  closes is still owed
- `on_message_begin`, `on_url`, `on_header`, `on_headers_complete`, `on_body` and
  `on_message_complete`: uvicorn bounds neither heads nor trailers nor pipelined requests, and reads
  the body of a request with `Upgrade` as the next request. The parser also calls `on_chunk_header`,
  which uvicorn does not have
- `on_response_complete`: what was received meanwhile is parsed now
- `pause_writing`, `resume_writing`: a client that does not read its answer has a time limit
- `timeout_keep_alive_handler`: the same for an idle connection

They use these of its methods and attributes:

- `shutdown`: an idle connection ends, another one after its answer
- `_unset_keepalive_if_required`: uvicorn stops the timer of an idle connection when any data comes;
  here only a request does, so that an empty line keeps no connection
- `pipeline`: requests that wait for their turn, the next one last; its length is bounded, and one
  that will never be whole is taken out
- `cycle`: the newest request's, see below
- `config`, `flow`, `headers`, `loop`, `parser`, `scheme`, `scope`, `server_state`, `transport`

Of a request's `RequestResponseCycle`: `response_started`, `response_complete` and `keep_alive`; and
`disconnected`, `message_event` and `waiting_for_100_continue`, which end one whose body will never
be whole. Of `uvicorn.protocols.http.flow_control.FlowControl`: `pause_reading`, `resume_reading`
and `write_paused`.

`server` makes the connections itself, with `uvicorn.server.ServerState`, of which it uses
`connections`, `tasks` and `default_headers`. `uvicorn.Server` is not used: it handles signals, and
knows of a connection only when its TLS handshake is over.
"""
