"""What a check finds of the way to Arthur: certificates, and what Arthur answers to a question."""

from __future__ import annotations

import ssl
import time
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from arthur_relay.cli.questions import ask
from arthur_relay.cli.report import Report
from arthur_relay.credentials import Credentials, is_loopback
from arthur_relay.destinations.proxies import route_to
from arthur_relay.destinations.trust import ClientCertificate
from arthur_relay.errors import ConfigurationError, CredentialsError, ModelError, RelayError
from arthur_relay.settings import RelaySettings

SchemaT_co = TypeVar("SchemaT_co", covariant=True)


def warn_of_unsafe_tls(report: Report, credentials: Credentials) -> None:
    """Note that certificates are not checked."""
    if not credentials.verify_ssl:
        report.warn("Credentials", "VERIFY_SSL is false: anyone on the way can pose as Arthur.")


def check_client_certificate(
    report: Report, settings: RelaySettings, credentials: Credentials | None
) -> bool:
    """Check that the client certificate for Arthur, if there is one, can be loaded.

    Returns:
        Whether Arthur can be asked.
    """
    try:
        found = ClientCertificate.of(settings)
        if found is None or credentials is None:
            return True
        if not credentials.url.startswith("https://"):
            report.warn(
                "Certificate", "The client certificate is not used: the address has no TLS."
            )
            return True
        found.load(ssl.create_default_context())
    except ConfigurationError as error:
        report.wrong("Certificate", str(error))
        return False
    report.fine("Certificate", f"The client certificate {found.certificate} can be loaded.")
    return True


class Asked(AbstractAsyncContextManager["Asked[SchemaT_co]", None], Protocol[SchemaT_co]):
    """A destination that can be asked, and that rows are not sent to here."""

    async def fetch_schema(self, model_id: str) -> SchemaT_co:
        """Ask for a model or a task. See `Destination.fetch_schema`."""
        ...

    async def check_access(self) -> None:
        """Ask whether it is there and lets us in; raises what `fetch_schema` does."""
        ...


class Makes(Protocol[SchemaT_co]):
    """The class of a destination."""

    def of(self, credentials: Credentials, settings: RelaySettings) -> Asked[SchemaT_co]:
        """Return a destination that the settings ask for."""
        ...


def ask_arthur(
    report: Report,
    credentials: Credentials,
    settings: RelaySettings,
    model_id: str,
    destination: Makes[SchemaT_co],
) -> SchemaT_co | None:
    """Ask Arthur for a model, which also shows whether Arthur is there and lets us in.

    Args:
        report: Collects what was found.
        credentials: Arthur's address, and who asks.
        settings: How it is asked.
        model_id: The model or the task; "" asks for none, only whether the credentials are good.
        destination: Its class.

    Returns:
        The model's schema; None when none was asked for, or Arthur gave none.
    """
    if not is_loopback(urlsplit(credentials.url).hostname or ""):
        for problem in route_to(credentials.url).problems:
            report.warn("Proxy", problem)
    began_at = time.perf_counter()
    try:
        asked = destination.of(credentials, settings)
        seconds = settings.connect_timeout_seconds
        schema = ask(
            asked, partial(_model_or_access, model_id), url=credentials.url, seconds=seconds
        )
    except CredentialsError as error:
        report.fine("Arthur", f"{credentials.url} answers.")
        report.wrong("Access", str(error))
    except ModelError as error:
        report.fine("Arthur", f"{credentials.url} answers.")
        report.fine("Access", f"It accepted {_who(credentials)}.")
        report.wrong("Model", str(error))
    except RelayError as error:
        sentence = str(error)  # it says whether there was an answer
        report.wrong("Arthur", sentence if sentence.endswith(("?", ".")) else f"{sentence}.")
    except Exception as error:  # noqa: BLE001 - the libraries' own, whose texts may quote a header
        report.wrong(
            "Arthur",
            f"{credentials.url} can't be asked ({_innermost(error)}): make sure that the address"
            " and the credentials have no characters that do not belong there.",
        )
    else:
        took = time.perf_counter() - began_at
        report.fine("Arthur", f"{credentials.url} answered within {took:.2f} s.")
        report.fine("Access", f"It accepted {_who(credentials)}.")
        return schema
    return None


async def _model_or_access(model_id: str, destination: Asked[SchemaT_co]) -> SchemaT_co | None:
    if model_id:
        return await destination.fetch_schema(model_id)
    await destination.check_access()
    return None


def _who(credentials: Credentials) -> str:
    return "the API key" if credentials.api_key is not None else f"the login {credentials.login}"


def _innermost(error: Exception) -> str:
    """Return the name of the error that a task group may have wrapped."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return type(error).__name__
