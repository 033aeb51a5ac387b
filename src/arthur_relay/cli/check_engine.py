"""What a check finds where the environment means Arthur Engine."""

from __future__ import annotations

import os

from arthur_relay.cli.check_arthur import (
    ask_arthur,
    check_client_certificate,
    warn_of_unsafe_tls,
)
from arthur_relay.cli.check_spool import check_dead_letter_file, check_spool
from arthur_relay.cli.questions import may_read_spans
from arthur_relay.cli.report import Report
from arthur_relay.cli.target import READING_ROLES
from arthur_relay.credentials import DEFAULT_URL, Credentials, resolve_engine_credentials
from arthur_relay.destinations.engine.client import EngineDestination, engine_owner
from arthur_relay.destinations.engine.libraries import check_libraries
from arthur_relay.destinations.engine.task import Task, task_named
from arthur_relay.errors import ConfigurationError
from arthur_relay.settings import RelaySettings, Trace

MOST_SPANS = 250
"""Spans in a request that Arthur Engine stores in about two seconds."""


def check_engine(report: Report, settings: RelaySettings) -> None:
    """Check what is in the environment of an application for Arthur Engine.

    Args:
        report: Collects what was found.
        settings: The settings, with the defaults for the Engine.
    """
    try:
        credentials = resolve_engine_credentials(allow_insecure=settings.allow_insecure)
    except ConfigurationError as error:
        check_packages(report)
        report.wrong("Credentials", str(error))
        return
    can_ask = check_engine_settings(report, settings, credentials)
    check_spool(report, settings, engine_owner(credentials))
    check_dead_letter_file(report, settings.dead_letter_file)
    try:
        named = task_named(None, None, os.environ)
    except ConfigurationError as error:
        report.wrong("Task", str(error))
        named = ""
    if not (named and can_ask):
        report.note("Arthur", "Not asked, because of what is missing above.")
        return
    if ask_engine(report, settings, credentials, named):
        what = "whole traces" if settings.trace is Trace.FULL else "LLM runs alone"
        report.note("Spans", f"Sent: {what} (trace = {settings.trace.value}).")


def check_engine_settings(
    report: Report,
    settings: RelaySettings,
    credentials: Credentials,
    *,
    key_variable: str = "ARTHUR_API_KEY",
) -> bool:
    """Check what can be without the Engine: packages, variables, a certificate of ours.

    Args:
        report: Collects what was found.
        settings: The settings, with the defaults for the Engine.
        credentials: The credentials.
        key_variable: The variable of the key; another one than Scope's where both are served.

    Returns:
        Whether the Engine can be asked.
    """
    can_write = check_packages(report)
    report.fine("Product", f"Arthur Engine at {credentials.url}.")
    report.fine("Credentials", f"There is an API key ({key_variable}).")
    if key_variable == "ARTHUR_API_KEY":
        _warn_of_variables_for_scope(report, credentials.url)
    _warn_of_great_requests(report, settings)
    warn_of_unsafe_tls(report, credentials)
    return check_client_certificate(report, settings, credentials) and can_write


def ask_engine(
    report: Report, settings: RelaySettings, credentials: Credentials, named: str
) -> bool:
    """Ask the Engine for a task, and what the key may do.

    Args:
        report: Collects what was found.
        settings: How it is asked.
        credentials: The Engine's address, and the key.
        named: The task's id or its name; "" asks for none.

    Returns:
        Whether it answered that spans can be sent.
    """
    before = report.problems
    task = ask_arthur(report, credentials, settings, named, EngineDestination)
    if report.problems > before:
        return False
    may_read = may_read_spans(credentials, settings, None if task is None else task.task_id)
    if task is not None:
        _describe_task(report, task, may_look=may_read is not False)
    if may_read is False:
        report.warn(
            "Reading",
            "The key may write traces and not read them: after an answer that was lost, spans are"
            " sent again, and the Engine may store them twice; and spans that it takes a part of"
            f" become dead letters. A key that may do both has the role {READING_ROLES}.",
        )
    elif may_read:
        report.fine("Reading", "The key may read spans: none is sent twice for a lost answer.")
    return True


def check_packages(report: Report) -> bool:
    """Check that spans can be written."""
    try:
        check_libraries()
    except ConfigurationError as error:
        report.wrong("Packages", str(error))
        return False
    return True


def _describe_task(report: Report, task: Task, *, may_look: bool) -> None:
    found = f"with the id {task.task_id}" if task.task_id else "by its name"
    report.fine("Task", f"{task.model_id}; spans are filed under it {found}.")
    if task.task_id is None and may_look:
        report.note("Task", "The Engine has none of that name, and makes it with the first span.")
    elif task.task_id is None:
        report.note(
            "Task",
            "The key may not look for it: where the Engine has none of that name, it makes one.",
        )


def _warn_of_variables_for_scope(report: Report, url: str) -> None:
    """Report variables that mean something to Arthur Scope alone, as after a move from there."""
    names = ("ARTHUR_ENDPOINT_URL", "ARTHUR_LOGIN", "ARTHUR_PASSWORD", "ARTHUR_ORGANIZATION_ID")
    for name in names:
        if os.environ.get(name, "").strip() not in ("", DEFAULT_URL):
            hint = (
                f": the Engine's address is {url} (ARTHUR_BASE_URL); a daemon for both products"
                " needs ARTHUR_ENGINE_API_KEY"
                if name in names[:1]
                else ""
            )
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
