"""How we show the broker who we are, and see that it is the right one."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any, Final

from arthur_relay.broker.nats.reasons import why
from arthur_relay.broker.settings import BROKER_PREFIX
from arthur_relay.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.broker.settings import BrokerSettings

_SEED: Final = re.compile(r"\bSU[A-Z2-7]{56}\b")


def access_options(settings: BrokerSettings) -> dict[str, Any]:
    """Return the client's options for credentials and TLS.

    Raises:
        SettingsError: A file can't be used.
    """
    path = settings.credentials_file
    credentials = {} if path is None else _credentials_of(path)
    return {**credentials, "tls": _tls(settings)}


def _tls(settings: BrokerSettings) -> ssl.SSLContext | None:
    if not settings.uses_tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.certificate is not None:
            context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"{BROKER_PREFIX}CA_FILE, _CERTIFICATE or _KEY can't be used: {why(error)}."
        ) from None
    return context


def _credentials_of(path: Path) -> dict[str, Any]:
    """Return the client's options for a file with credentials.

    The file is read here, because the library never ends on one that has no token.

    Raises:
        SettingsError: It can't be used.
    """
    name = f"{BROKER_PREFIX}CREDENTIALS_FILE ({path})"
    try:
        text = path.read_text(encoding="ascii")
    except UnicodeDecodeError:
        raise SettingsError(f"{name} can't be used: it is not text.") from None
    except OSError as error:
        raise SettingsError(f"{name} can't be read: {error.strerror}.") from None
    found = _SEED.search(text)
    if found is None or ("-----BEGIN" in text and "BEGIN NATS USER JWT" not in text):
        raise SettingsError(f"{name} has neither a user's credentials nor the seed of an nkey.")
    try:
        import nkeys  # type: ignore[import-untyped] # noqa: PLC0415 - for credentials only

        nkeys.from_seed(bytearray(found[0].encode()))
    except ImportError:
        raise SettingsError(
            f"{BROKER_PREFIX}CREDENTIALS_FILE needs one more package: pip install"
            " 'arthur-relay[nats]'."
        ) from None
    except Exception:  # noqa: BLE001 - of the library, and of what it uses
        raise SettingsError(f"{name} has a seed that is damaged.") from None
    if "-----BEGIN" in text:
        return {"user_credentials": str(path)}
    return {"nkeys_seed_str": found[0]}
