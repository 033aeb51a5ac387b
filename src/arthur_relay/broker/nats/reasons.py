"""What the library's errors mean, in the users' words."""

from __future__ import annotations

import asyncio
import ssl

import nats.errors
import nats.js.errors

from arthur_relay.broker.errors import BrokerAwayError
from arthur_relay.broker.settings import BROKER_PREFIX
from arthur_relay.errors import ConfigurationError, RelayError


def why(error: BaseException) -> str:
    """Return an error's text, without what only the library's authors understand."""
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "it does not answer in time"
    if isinstance(error, nats.js.errors.NoStreamResponseError | nats.errors.NoRespondersError):
        return "it has no stream, or no leader now"
    if _is_unauthorized(error):
        return "it refuses our credentials"
    description = getattr(error, "description", None) or str(error) or type(error).__name__
    return str(description).removeprefix("nats: ")


def is_forbidden(error: BaseException) -> bool:
    """Return whether our account may not do what we asked for."""
    return "permissions violation" in str(error).lower()


def raise_of_opening(connecting: asyncio.Task[None], last: Exception | None) -> None:
    """Raise why there is no connection, if there is none.

    Args:
        connecting: The attempt, which has ended.
        last: The last error that the library met in the background.

    Raises:
        BrokerAwayError: No server answers.
        ConfigurationError: A server refuses us, or can't be trusted.
    """
    if connecting.cancelled():
        raise _of_opening(last or TimeoutError())
    if (error := connecting.exception()) is not None:
        raise _of_opening(error)


def _of_opening(error: BaseException) -> RelayError:
    """Return the error to raise when there is no connection."""
    if isinstance(error, RelayError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"The broker's certificate can't be trusted: {error.verify_message}; see"
            f" {BROKER_PREFIX}CA_FILE."
        )
    # An end in the middle of the handshake is that of a server which ends, or is not up yet.
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return ConfigurationError(
            f"There is no TLS with the broker: {why(error)}; see {BROKER_PREFIX}URL and"
            f" {BROKER_PREFIX}CERTIFICATE."
        )
    if isinstance(error, nats.errors.SecureConnWantedError):
        return ConfigurationError(
            f"{BROKER_PREFIX}URL has tls://, and the broker has no TLS: turn it on there."
        )
    if _is_unauthorized(error):
        return ConfigurationError(
            f"The broker refuses our credentials: see {BROKER_PREFIX}CREDENTIALS_FILE and the"
            " broker's accounts."
        )
    return BrokerAwayError(why(error))


def _is_unauthorized(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, nats.errors.AuthorizationError) or any(
        each in text for each in ("authorization", "authentication", "account authentication")
    )
