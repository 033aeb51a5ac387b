"""The certificate for TCP: loaded at the start, and again when it was renewed."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from arthur_relay.errors import SettingsError

if TYPE_CHECKING:
    from arthur_relay.daemon.settings import DaemonSettings


def load_tls(
    settings: DaemonSettings, *, into: ssl.SSLContext | None = None
) -> ssl.SSLContext | None:
    """Load the certificate and its key.

    Args:
        settings: Where they are.
        into: What connections are made with from now on; left as it is when they can't be loaded.

    Returns:
        What connections are made with, or None without a certificate.

    Raises:
        SettingsError: They can't be loaded, or do not belong together.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return None
    # Tried apart first: a context that was given half of a pair would refuse all connections.
    fresh = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        fresh.load_cert_chain(certificate, key, password="")
        if into is not None:
            into.load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError is one too
        reason = getattr(error, "reason", None) or error.strerror or "no key without a password"
        raise SettingsError(
            f"The certificate {certificate} with the key {key} can't be loaded: {reason}."
        ) from None
    return fresh if into is None else into
