"""What the sandbox's tests share: a running sandbox, and a client that may call its API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from arthur_relay.sandbox import ArthurSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sandbox() -> Iterator[ArthurSandbox]:
    with ArthurSandbox(model_id="demo") as running:
        yield running


@pytest.fixture
def client(sandbox: ArthurSandbox) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=sandbox.url, headers={"Authorization": sandbox.api_key}, timeout=10
    ) as opened:
        yield opened
