"""The server: a local Arthur in a thread of its own, for tests, demos and development."""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from arthur_relay.sandbox.auth import Auth
from arthur_relay.sandbox.core import Core
from arthur_relay.sandbox.engine.core import EngineCore
from arthur_relay.sandbox.engine.keys import Role
from arthur_relay.sandbox.engine.store import EngineStore
from arthur_relay.sandbox.engine.views import full_span_view
from arthur_relay.sandbox.faults import Faults
from arthur_relay.sandbox.journal import Journal, RecordedRequest
from arthur_relay.sandbox.models import DEMO_PARTNER_MODEL_ID, demo_attributes
from arthur_relay.sandbox.running import Running, bind
from arthur_relay.sandbox.store import Store

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType, TracebackType


DEMO_TASK: Final = "arthur-relay demo"
WRITE_KEY: Final = "sandbox-write-key"
READ_KEY: Final = "sandbox-read-key"
ADMIN_KEY: Final = "sandbox-admin-key"
"""Keys of the Engine beside the first one: each may do less."""


class ArthurSandbox:
    """A local Arthur Scope (REST API v3) and Arthur Engine, with a page, and faults on demand.

    A context manager: the server runs inside of the block. Any thread may use all methods and
    properties; `inferences`, `requests`, `faults`, `duplicates` and `add_model` work while the
    server is stopped, too. What it has as an Engine is in memory only. It logs nothing but what
    uvicorn says at INFO.

    Args:
        host: The address to listen on.
        port: The port; 0 takes a free one at the first start and stays with it.
        data: The database's file, which is made if it is missing. None keeps everything in memory,
            for the life of this object.
        login: The only user's name.
        password: Their password.
        api_key: The only API key of Arthur Scope, and a key of the Engine that may write and read.
        model: The first model's JSON, of which only `attributes` is needed; None takes the demo
            model.
        model_id: The first model's id; None makes one, or finds it in the data.
        organization_id: The user's organisation.
        token_seconds: How long a login is valid. Below 300, the SDK logs in again without pause.
        max_body_bytes: The longest body of inferences or spans; longer ones are answered with 413.
            None sets no limit.
        outside_identity_provider: Whether `GET /users/me` answers 403, as it does to users of an
            outside identity provider; a sequence also names the user's organisations.
        task_id: The id of the Engine's first task; None makes one.

    Attributes:
        engine_keys: The Engine's keys and their roles; may be changed at any time.
        task_id: The id of the Engine's first task.

    Raises:
        InvalidModelError: The model is not one that Arthur would take.
        ValueError: The data has the model under another id.
        OSError, sqlite3.Error: The data can't be opened.
    """

    def __init__(  # noqa: PLR0913  # keyword-only, each with a default
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        data: Path | str | None = None,
        login: str = "admin",
        password: str = "sandbox",  # noqa: S107  # guards nothing
        api_key: str = "sandbox-key",
        model: Mapping[str, Any] | None = None,
        model_id: str | None = None,
        organization_id: str = "sandbox-org",
        token_seconds: float = 3600.0,
        max_body_bytes: int | None = None,
        outside_identity_provider: bool | Sequence[str] = False,
        task_id: str | None = None,
    ) -> None:
        self.login = login
        self.password = password
        self.api_key = api_key
        self._host = host
        self._port = port
        self._store = Store(None if data is None else Path(data))
        self._journal = Journal()
        outside = outside_identity_provider
        auth = Auth(
            login=login,
            password=password,
            api_key=api_key,
            secret=self._store.secret(),
            token_seconds=token_seconds,
            organization_ids=[organization_id] if isinstance(outside, bool) else outside,
            outside=outside is not False,
        )
        self.faults = Faults(auth, self._journal.changes)
        self.engine_keys = {
            api_key: Role.TASK_ADMIN,
            WRITE_KEY: Role.VALIDATION_USER,
            READ_KEY: Role.ORG_AUDITOR,
            ADMIN_KEY: Role.ADMIN_KEY,
        }
        engine = EngineCore(EngineStore(), self.engine_keys, self._journal, max_body_bytes)
        self.task_id = engine.store.add_task(DEMO_TASK, task_id=task_id).id
        self._core = Core(
            self._store,
            auth,
            self.faults,
            self._journal,
            max_body_bytes,
            _is_loopback(host),
            engine,
        )
        self._lifecycle = threading.RLock()
        self._running: Running | None = None
        self._reserved: socket.socket | None = None
        self.model_id = self._first_model(model or {}, model_id)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The server's URL, without a path; known from the first start on.

        If it listens on all addresses, this is the one of this machine: the others are not known
        here, and the relay sends to no other over plain HTTP.

        Raises:
            RuntimeError: The port is 0 and the server was never started.
        """
        if self._port == 0:
            raise RuntimeError("the sandbox has no port yet: start it first")
        host = _reachable(self._host)
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self._port}"

    @property
    def inferences(self) -> list[dict[str, Any]]:
        """All stored rows of all models, oldest first; may be empty.

        Each is as it was received, with `model_id` beside its fields, and the ground truth that
        came later merged in.
        """
        return [{**stored.row, "model_id": stored.model_id} for stored in self._store.inferences()]

    @property
    def spans(self) -> list[dict[str, Any]]:
        """All spans that the Engine has stored, in order of arrival; may be empty.

        Each as `GET /api/v1/traces/spans/{span_id}` shows it; one that came twice is there twice.
        """
        return [full_span_view(each) for each in self._core.engine.store.spans()]

    @property
    def traces(self) -> list[dict[str, Any]]:
        """All traces of the Engine, newest first; may be empty.

        Each as `GET /api/v1/traces/{trace_id}` shows it: with its spans as a tree.
        """
        found = self._core.engine.store.traces(before=None, limit=sys.maxsize)
        return [self._core.engine.view(spans, is_full=True) for spans in found]

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """The feedback that the Engine has, one for each trace, as `log_feedback` sends it."""
        return self._core.engine.store.annotations()

    @property
    def requests(self) -> list[RecordedRequest]:
        """The last requests to the API (10,000 at most), oldest first; may be empty."""
        return self._journal.requests

    @property
    def duplicates(self) -> int:
        """How many rows came with an id that was stored before; spans are stored again."""
        return self._journal.duplicates

    @property
    def state(self) -> dict[str, Any]:
        """The counts that `GET /sandbox/state` answers."""
        return self._core.state()

    def environment(self) -> dict[str, str]:
        """The environment variables with which the SDK and the relay find this sandbox.

        Raises:
            RuntimeError: The port is 0 and the server was never started.
        """
        return {
            "ARTHUR_ENDPOINT_URL": self.url,
            "ARTHUR_LOGIN": self.login,
            "ARTHUR_PASSWORD": self.password,
            "ARTHUR_API_KEY": self.api_key,
            "ARTHUR_MODEL_ID": self.model_id,
        }

    def engine_environment(self, *, api_key: str | None = None) -> dict[str, str]:
        """The environment variables with which the Engine's SDK and the relay find this sandbox.

        Args:
            api_key: The key; None takes the one that may write and read.

        Raises:
            RuntimeError: The port is 0 and the server was never started.
        """
        return {
            "ARTHUR_BASE_URL": self.url,
            "ARTHUR_API_KEY": self.api_key if api_key is None else api_key,
            "ARTHUR_TASK_ID": self.task_id,
        }

    def add_task(self, name: str, *, task_id: str | None = None) -> str:
        """Make another task of the Engine.

        Args:
            name: Its name, which another task may have too.
            task_id: Its id, a UUID. None makes one.

        Returns:
            Its id.

        Raises:
            ValueError: The id is no UUID, or taken.
        """
        return self._core.engine.store.add_task(name, task_id=task_id).id

    def add_model(
        self,
        attributes: Sequence[Mapping[str, Any]] | None = None,
        *,
        model_id: str | None = None,
        partner_model_id: str | None = None,
        **fields: Any,
    ) -> str:
        """Register another model.

        Args:
            attributes: Its attributes; None takes the demo model's.
            model_id: Its id; None makes one.
            partner_model_id: Its external id; None derives one from the model's number.
            **fields: Any other field of the model's JSON.

        Returns:
            Its id.

        Raises:
            InvalidModelError: The model is not one that Arthur would take.
            ModelExistsError: One of its ids is taken.
        """
        number = len(self._store.models()) + 1
        chosen = demo_attributes() if attributes is None else [dict(each) for each in attributes]
        given = {
            "partner_model_id": partner_model_id or f"{DEMO_PARTNER_MODEL_ID}-{number}",
            "input_type": "NLP",
            "output_type": "TOKEN_SEQUENCE",
            "is_batch": False,
            **fields,
            "attributes": chosen,
        }
        return str(self._core.add_model(given, model_id=model_id)["id"])

    def start(self) -> None:
        """Start the server and return when it listens. Nothing happens if it runs already.

        Raises:
            OSError: The port can't be had.
            RuntimeError: The server did not come up.
        """
        with self._lifecycle:
            if self._running is not None:
                return
            listener = self._reserved or bind(self._host, self._port)
            self._reserved = None
            self._port = listener.getsockname()[1]
            self._running = Running(self._core, listener)
            self._running.start()

    def stop(self) -> None:
        """Stop the server, free its port and close the data. Nothing happens if it is stopped.

        Requests that are being answered have a second to end; those that hang are cut, and so are
        event streams. After `start`, everything is as before.
        """
        with self._lifecycle:
            self._stop()
            if self._reserved is not None:
                self._reserved.close()
                self._reserved = None
            self._store.close()

    def go_away(self) -> None:
        """Begin an outage: stop, but keep the port, so that connections are refused until then."""
        with self._lifecycle:
            if self._reserved is None:
                self._stop()
                self._reserved = bind(self._host, self._port)

    def come_back(self) -> None:
        """End an outage: start again, on the same port and with the same data."""
        self.start()

    def wait(self) -> int | None:
        """Block until SIGINT or SIGTERM arrives, or the server stops otherwise.

        It sees signals only in the main thread, and restores their handlers before it returns.
        After a signal, later calls return at once. The server goes on.

        Returns:
            The signal's number, or None if it was not a signal.
        """
        running = self._running
        if running is None:
            return None
        received: list[int] = []

        def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # signal's
            received.append(number)
            running.ended.set()

        with _signals(on_signal):
            running.ended.wait()
        return received[0] if received else None

    def _stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None

    def _first_model(self, model: Mapping[str, Any], model_id: str | None) -> str:
        partner_id = str(model.get("partner_model_id", DEMO_PARTNER_MODEL_ID))
        found = self._store.model(partner_id, by_partner_id=True)
        if found is None:
            fields: dict[str, Any] = {"display_name": "arthur-relay demo"} if not model else {}
            return self.add_model(
                **{**fields, **model, "partner_model_id": partner_id},
                model_id=model_id or model.get("id"),
            )
        if model_id not in {None, found["id"]}:
            raise ValueError(
                f"the data has model {partner_id!r} under the id {found['id']!r}, "
                f"not {model_id!r}; leave model_id out or use other data"
            )
        return str(found["id"])


@contextlib.contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGINT and SIGTERM go to a handler inside of the block, where signals can be had."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _reachable(host: str) -> str:
    """Return an address at which a server that listens on `host` can be reached from here."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
