"""`arthur-relay check`: does what is in the environment work? Nothing is sent."""

from __future__ import annotations

import os
import ssl
import time
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

import typer

from arthur_relay.cli.check_spool import check_dead_letter_file, check_spool
from arthur_relay.cli.questions import ask, may_read_spans
from arthur_relay.cli.report import Report, secrets
from arthur_relay.cli.target import READING_ROLES
from arthur_relay.credentials import (
    Credentials,
    credentials_from_environment,
    is_loopback,
    means_engine,
    resolve_engine_credentials,
)
from arthur_relay.daemon.configuration import unknown_variables
from arthur_relay.destinations.engine.client import EngineDestination, engine_owner
from arthur_relay.destinations.engine.libraries import check_libraries
from arthur_relay.destinations.engine.task import Task, task_named
from arthur_relay.destinations.proxies import route_to
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.destinations.trust import ClientCertificate
from arthur_relay.encoding.coerce import NotCoercible, coercer
from arthur_relay.encoding.run_fields import RUN_VALUES
from arthur_relay.errors import ConfigurationError, CredentialsError, ModelError, RelayError
from arthur_relay.settings import RelaySettings, Trace
from arthur_relay.settings.credential_files import with_files
from arthur_relay.settings.variables import leave_to_command

MOST_SPANS = 250
"""Spans in a request that Arthur Engine stores in about two seconds."""

SchemaT_co = TypeVar("SchemaT_co", covariant=True)

_EXAMPLES: Final = {
    "STRING": "text",
    "INTEGER": 12,
    "FLOAT": 0.75,
    "BOOLEAN": True,
    "ARRAY(STRING)": ["production"],
}
"""A value of each type that the named values of a run can have."""


def run_check() -> None:
    """Check what is in the environment, and print what was found.

    Raises:
        typer.Exit: With 1 when something does not work.
    """
    report = Report(secrets=secrets())
    _check(report)
    report.show("What ArthurCallbackHandler.from_env() would find; no inference is sent.")
    if report.count("✗"):
        report.conclude("Not ready: see ✗ above", "bold red")
        raise typer.Exit(1)
    if report.is_disabled:
        found = "else it would not work: see ! above" if report.is_wrong else "all is right"
        report.conclude(f"Disabled: {found}, and nothing is sent", "bold yellow")
        return
    report.conclude("Ready: inferences will reach Arthur", "bold green")


def _check(report: Report) -> None:
    settings = _check_settings(report)
    warn_of_unknown_variables(report)
    if settings is None:
        report.note("Arthur", "Not asked, because the settings are not valid.")
        return
    try:
        is_engine = means_engine(os.environ)
    except ConfigurationError as error:
        report.wrong("Product", str(error))
        report.note("Arthur", "Not asked, because it is not clear which product is meant.")
        return
    if is_engine:
        _check_engine(report, settings.for_engine())
        return
    credentials = check_credentials(report, settings)
    can_ask = check_client_certificate(report, settings, credentials)
    check_spool(report, settings, None if credentials is None else credentials.owner)
    check_dead_letter_file(report, settings.dead_letter_file)
    model_id = os.environ.get("ARTHUR_MODEL_ID", "").strip()
    if not model_id:
        report.wrong(
            "Model",
            "ARTHUR_MODEL_ID is not set: set it to the id of the Arthur model to log to; or"
            " ARTHUR_TASK_ID or ARTHUR_BASE_URL, for Arthur Engine.",
        )
    if credentials is None or not model_id or not can_ask:
        report.note("Arthur", "Not asked, because of what is missing above.")
        return
    schema = ask_arthur(report, credentials, settings, model_id, ScopeDestination)
    if schema is not None:
        _describe(report, schema)


def _check_engine(report: Report, settings: RelaySettings) -> None:
    """Check what is in the environment for Arthur Engine."""
    can_write = _check_packages(report)
    try:
        credentials = resolve_engine_credentials(allow_insecure=settings.allow_insecure)
    except ConfigurationError as error:
        report.wrong("Credentials", str(error))
        return
    report.fine("Product", f"Arthur Engine at {credentials.url}.")
    report.fine("Credentials", "There is an API key (ARTHUR_API_KEY).")
    _warn_of_variables_for_scope(report, credentials.url)
    _warn_of_great_requests(report, settings)
    warn_of_unsafe_tls(report, credentials)
    can_ask = check_client_certificate(report, settings, credentials)
    check_spool(report, settings, engine_owner(credentials))
    check_dead_letter_file(report, settings.dead_letter_file)
    try:
        named = task_named(None, None, os.environ)
    except ConfigurationError as error:
        report.wrong("Task", str(error))
        named = ""
    if not (named and can_ask and can_write):
        report.note("Arthur", "Not asked, because of what is missing above.")
        return
    task = ask_arthur(report, credentials, settings, named, EngineDestination)
    if task is not None:
        _describe_task(report, credentials, settings, task)


def _check_packages(report: Report) -> bool:
    """Check that spans can be written."""
    try:
        check_libraries()
    except ConfigurationError as error:
        report.wrong("Packages", str(error))
        return False
    return True


def _describe_task(
    report: Report, credentials: Credentials, settings: RelaySettings, task: Task
) -> None:
    """Report where spans go, and what a lost answer means."""
    found = f"with the id {task.task_id}" if task.task_id else "by its name"
    report.fine("Task", f"{task.model_id}; spans are filed under it {found}.")
    may_read = may_read_spans(credentials, settings, task.task_id)
    if task.task_id is None:
        why = "the key may not look for it" if may_read is False else "there is none of that name"
        report.note("Task", f"If the Engine has none of that name, it makes one ({why}).")
    if may_read is False:
        report.warn(
            "Reading",
            "The key may write traces and not read them: after an answer that was lost, spans are"
            " sent again, and the Engine may store them twice; and spans that it takes a part of"
            f" become dead letters. A key that may do both has the role {READING_ROLES}.",
        )
    elif may_read:
        report.fine("Reading", "The key may read spans: none is sent twice for a lost answer.")
    what = "whole traces" if settings.trace is Trace.FULL else "LLM runs alone"
    report.note("Spans", f"Sent: {what} (trace = {settings.trace.value}).")


def _warn_of_variables_for_scope(report: Report, url: str) -> None:
    """Report variables that mean something to Arthur Scope alone, as after a move from there."""
    names = ("ARTHUR_ENDPOINT_URL", "ARTHUR_LOGIN", "ARTHUR_PASSWORD", "ARTHUR_ORGANIZATION_ID")
    for name in names:
        if os.environ.get(name, "").strip():
            hint = f": the Engine's address is {url} (ARTHUR_BASE_URL)" if name in names[:1] else ""
            report.warn("Variable", f"{name} is for Arthur Scope, and not used{hint}.")


def _warn_of_great_requests(report: Report, settings: RelaySettings) -> None:
    """Report settings that were made for Arthur Scope, which takes more at once."""
    if settings.batch_size > MOST_SPANS:
        report.warn(
            "Settings",
            f"ARTHUR_RELAY_BATCH_SIZE is {settings.batch_size}: the Engine stores some 120 spans a"
            f" second, so a request takes {settings.batch_size / 120:.0f} s; 50 is the default.",
        )
    if settings.max_in_flight > 1:
        report.warn(
            "Settings",
            f"ARTHUR_RELAY_MAX_IN_FLIGHT is {settings.max_in_flight}: the Engine is not faster with"
            " several requests at once, and the root of a trace may come before its other spans.",
        )


def warn_of_unknown_variables(report: Report) -> None:
    """Report each variable that looks like a setting but is none."""
    for unknown in unknown_variables(os.environ):
        report.warn("Variable", unknown.sentence)


def _check_settings(report: Report) -> RelaySettings | None:
    leave_to_command(os.environ)
    try:
        settings = RelaySettings()
    except RelayError as error:
        report.wrong("Settings", str(error))
        return None
    changed = ", ".join(sorted(settings.model_fields_set))
    report.fine(
        "Settings", f"Valid; set: {changed}." if changed else "Valid; all are the defaults."
    )
    report.is_disabled = settings.disabled
    if settings.disabled:
        report.warn("Settings", "ARTHUR_RELAY_DISABLED is set: nothing will be captured.")
    return settings


def check_credentials(report: Report, settings: RelaySettings) -> Credentials | None:
    """Look for credentials, and report which were found."""
    try:
        found = credentials_from_environment(allow_insecure=settings.allow_insecure)
    except ConfigurationError as error:
        report.wrong("Credentials", str(error))
        return None
    except ValueError:  # urllib's
        report.wrong("Credentials", "ARTHUR_ENDPOINT_URL can't be read as an address.")
        return None
    if found.api_key is not None:
        who = "an API key (ARTHUR_API_KEY"
        if os.environ.get("ARTHUR_LOGIN"):
            who += ", which wins over ARTHUR_LOGIN"
        report.fine("Credentials", f"There is {who}).")
    else:
        report.fine("Credentials", f"There is the login {found.login}, with a password.")
        if not with_files(os.environ).get("ARTHUR_PASSWORD"):
            report.warn(
                "Credentials",
                "ARTHUR_PASSWORD is not set: without a terminal to ask at, this will fail.",
            )
    warn_of_unsafe_tls(report, found)
    return found


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
        report.wrong("Arthur", f"Not reached: {error}.")
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


def _describe(report: Report, schema: ModelSchema) -> None:
    """Report which values of a run the model takes."""
    report.fine(
        "Model",
        f"{schema.model_id} is an LLM: prompts go to {schema.input_text}, answers to"
        f" {schema.output_text}.",
    )
    found = coverage(schema)
    for name, value_type in found.unfit:
        report.warn(
            "Attributes",
            f"{name} is registered as {value_type}, which can't hold it; it will be left out.",
        )
    for label, names in (
        ("Sent", found.sent),
        ("Not registered, could be sent too", found.absent),
        ("Taken from the run's metadata", found.own),
    ):
        if names:
            report.note("Attributes", f"{label}: {', '.join(names)}.")
    if not {"outcome", "error"} & schema.types.keys():
        report.note(
            "Attributes", "Runs that fail are not sent: no outcome or error is registered to tell."
        )


class Coverage(NamedTuple):
    """What becomes of a model's optional attributes. Every list may be empty.

    Attributes:
        sent: Those that the relay fills in.
        absent: Those that it could fill in, had the model registered them.
        unfit: Those that are registered as a type that can't hold what the relay sends, with it.
        own: Others, which are filled in from the run's metadata when it has a key of that name.
    """

    sent: list[str]
    absent: list[str]
    unfit: list[tuple[str, str]]
    own: list[str]


def coverage(schema: ModelSchema) -> Coverage:
    """Return what becomes of a model's optional attributes, in the order in which they are read."""
    found = Coverage(sent=[], absent=[], unfit=[], own=[])
    for role, name in (("tokens", schema.tokens), ("likelihoods", schema.likelihoods)):
        if name is None:
            found.absent.append(f"token {role}" if role == "likelihoods" else role)
        else:
            found.sent.append(name)
    for name, value in RUN_VALUES.items():
        value_type = schema.types.get(name)
        if value_type is None:
            found.absent.append(name)
        elif _fits(_EXAMPLES[value.kind], value_type):
            found.sent.append(name)
        else:
            found.unfit.append((name, value_type))
    used = {schema.input_text, schema.output_text, schema.tokens, schema.likelihoods}
    used |= RUN_VALUES.keys()
    found.own.extend(name for name in schema.types if name not in used)
    return found


def _fits(value: object, value_type: str) -> bool:
    try:
        coercer(value_type)(value)
    except NotCoercible:
        return False
    return True


def _who(credentials: Credentials) -> str:
    return "the API key" if credentials.api_key is not None else f"the login {credentials.login}"


def _innermost(error: Exception) -> str:
    """Return the name of the error that a task group may have wrapped."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return type(error).__name__
