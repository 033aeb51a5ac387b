"""A task of the Engine: what spans are filed under, and what their resource says of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from arthur_relay.destinations.engine.rows import text_attribute
from arthur_relay.errors import ConfigurationError

_SDK = "telemetry.sdk.name"
_OURS = "arthur-relay"

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Task:
    """A task, as spans name it: by its id, or by a service's name; immutable.

    Attributes:
        model_id: What the user named as the task: its id or its name.
        task_id: The Engine's id of it, or None.
        service_name: The name by which the Engine finds or makes the task, where it has no id.
        service_version: The version of the application, or None.
    """

    model_id: str
    task_id: str | None = None
    service_name: str | None = None
    service_version: str | None = None

    @classmethod
    def named(cls, task: str, *, service_version: str | None = None) -> Task:
        """Return the task that a user means, without asking the Engine."""
        if is_task_id(task):
            return cls(task, task_id=task.lower(), service_version=service_version)
        return cls(task, service_name=task, service_version=service_version)

    @property
    def types(self) -> Mapping[str, str]:
        """Nothing: a span may carry any attribute."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """Return a new JSON object that `from_text` reads, with the user's name for it as `id`."""
        found = asdict(self)
        return {"id": found.pop("model_id"), **found}

    def to_text(self) -> str:
        """Return a text to keep of it."""
        return json.dumps(self.to_json())

    @classmethod
    def from_text(cls, model_id: str, text: str) -> Task | None:
        """Return the task that a text was kept of, or None when it is no text of that task."""
        try:
            found = json.loads(text)
        except ValueError:
            return None
        if not isinstance(found, dict) or found.get("id") != model_id:
            return None
        names = ("task_id", "service_name", "service_version")
        given = {name: found.get(name) for name in names}
        if not all(value is None or isinstance(value, str) for value in given.values()):
            return None
        if given["task_id"] is None and given["service_name"] is None:
            return None
        return cls(model_id, **given)

    def resource(self) -> bytes:
        """Return the serialized `Resource` of its spans, without tag.

        Written by hand, which is five texts, so that a start does not wait for the import of
        OpenTelemetry's messages.
        """
        texts = {
            "service.version": self.service_version,
            _SDK: _OURS,
            "telemetry.sdk.version": _our_version(),
            "telemetry.sdk.language": "python",
        }
        others = (text_attribute(key, value) for key, value in texts.items() if value)
        return b"".join((self._naming(), *others))

    def resolve(self, resource: bytes) -> bytes:
        """Return a resource with the task's id, if it was written before the id was known.

        Such a resource of ours names the task by its name, first. Any other stays as it is, also
        one of that name by another SDK: which task its spans belong to is for the Engine to say.
        """
        unresolved = _named(self.model_id)
        if self.task_id is None or not is_unresolved(resource, self.model_id):
            return resource
        return self._naming() + resource[len(unresolved) :]

    def _naming(self) -> bytes:
        if self.task_id:
            return text_attribute("arthur.task", self.task_id)
        return _named(self.service_name or "")


def is_unresolved(resource: bytes, name: str) -> bool:
    """Return whether a resource is one of ours that names a task by its name, not by its id."""
    return resource.startswith(_named(name)) and text_attribute(_SDK, _OURS) in resource


def _named(name: str) -> bytes:
    return text_attribute("service.name", name) if name else b""


def task_named(task: str | None, task_id: str | None, environment: Mapping[str, str]) -> str:
    """Return what names the task: an argument, else `ARTHUR_TASK_ID`, else `OTEL_SERVICE_NAME`.

    Args:
        task: The task's id or its name.
        task_id: Its id, instead.
        environment: The environment's variables; an empty one counts as not set.

    Raises:
        ConfigurationError: Both arguments were given, or nothing names a task; the id is no UUID,
            or the name is no text, or blank.
    """
    if task is not None and task_id is not None:
        raise ConfigurationError("Give the task by task=... or by task_id=..., not by both.")
    if task is None:
        for source, given in (
            ("task_id", task_id),
            ("ARTHUR_TASK_ID", environment.get("ARTHUR_TASK_ID", "").strip() or None),
        ):
            if given is not None:
                return _checked_id(source, given)
        task = environment.get("OTEL_SERVICE_NAME", "").strip() or None
    if task is None:
        raise ConfigurationError(
            "Arthur Engine needs a task: give task=... (its name) or task_id=..., or set"
            " ARTHUR_TASK_ID or OTEL_SERVICE_NAME."
        )
    if not (isinstance(task, str) and task.strip()):  # type: ignore[redundant-expr]  # of users
        raise ConfigurationError(
            f"The task can't be {task!r}: give the name of a task, or its id, as a text."
        )
    return task


def _checked_id(source: str, given: object) -> str:
    if not isinstance(given, str) or not is_task_id(given):
        raise ConfigurationError(
            f"{source} can't be {given!r}: give the id that Arthur Engine shows for the task, a"
            " UUID; or its name, by task=... or OTEL_SERVICE_NAME."
        )
    return given


def is_task_id(task: str) -> bool:
    """Return whether a user's name for a task is an id, which the Engine writes as a UUID."""
    return _ID.fullmatch(task) is not None


def _our_version() -> str:
    try:
        return version("arthur-relay")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
