"""How a server treats its connections."""

from __future__ import annotations

import logging
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a server treats its connections.

    Attributes:
        logger: Where it logs what it refuses and ends.
        unused_level: The level at which it logs the end of a connection that brought no request.
        keep_alive_seconds: How long it keeps an idle connection.
        answers_half_closed: Whether a client that has closed its sending side still gets its
            answers. If not, it counts as gone at once.
        access_log: Whether uvicorn logs each request, at INFO.
        date_header: Whether answers have a `Date`.
        time_limit: The name of the setting that says how long a request may take to arrive, or "".
    """

    logger: logging.Logger
    unused_level: int = logging.WARNING
    keep_alive_seconds: int
    answers_half_closed: bool
    access_log: bool
    date_header: bool
    time_limit: str = ""
