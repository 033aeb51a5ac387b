"""`arthur-relay check`: does what is in the environment work? Nothing is sent."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

import typer

from arthur_relay.cli.check_arthur import (
    ask_arthur,
    check_client_certificate,
    warn_of_unsafe_tls,
)
from arthur_relay.cli.check_engine import check_engine
from arthur_relay.cli.check_spool import check_dead_letter_file, check_spool
from arthur_relay.cli.report import Report, secrets
from arthur_relay.credentials import Credentials, credentials_from_environment, means_engine
from arthur_relay.daemon.configuration import unknown_variables
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.encoding.coerce import NotCoercible, coercer
from arthur_relay.encoding.run_fields import RUN_VALUES
from arthur_relay.errors import ConfigurationError, RelayError
from arthur_relay.settings import RelaySettings
from arthur_relay.settings.credential_files import with_files
from arthur_relay.settings.variables import leave_to_command

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
        found = "else it would not work: see ! above" if report.problems else "all is right"
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
        check_engine(report, settings.for_engine())
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
