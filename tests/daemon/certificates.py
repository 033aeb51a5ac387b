"""Certificates of a daemon's own, and clients that trust them."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


def issue_certificate(directory: Path) -> ssl.SSLContext:
    """Write a certificate for 127.0.0.1 and its key to `cert` and `key`.

    Returns:
        The context of a client that trusts this certificate, and none before it.
    """
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(directory / "key")
    (directory / "cert").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
