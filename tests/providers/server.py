"""One server for all wire formats, in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.routing import Mount

from tests.serving import Serving

from .wire import Wire


class Server(Serving):
    """Serves wire formats while inside of the `with` block, each at `/<its name>/…`.

    Args:
        wires: The formats.
    """

    def __init__(self, wires: Iterable[Wire]) -> None:
        routes = [Mount(f"/{wire.name}", routes=wire.routes()) for wire in wires]
        super().__init__(Starlette(routes=routes), "providers")

    def at(self, wire: Wire) -> str:
        """Return where a format is spoken, without a slash at the end."""
        return f"{self.url}/{wire.name}"
