"""How a server's process is commanded: its owner's end of a socket pair, in lines of JSON."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

Obey = Callable[[str, Any], Awaitable[Any]]
"""Does what a command says, with its argument, and returns what is to be answered."""


async def obey_owner(control: socket.socket, *, port: int, obey: Obey) -> None:
    """Tell the owner the port, then obey, one command after the other, until its end is closed."""
    reader, writer = await asyncio.open_connection(sock=control)
    writer.write(f"{port}\n".encode())
    while line := await reader.readline():
        command, argument = json.loads(line)
        result = await obey(command, argument)
        writer.write(json.dumps(result).encode() + b"\n")
