"""The clients of providers that have a wire format of their own."""

from __future__ import annotations

from .client import Client

NATIVE_CLIENTS: tuple[Client, ...] = ()
