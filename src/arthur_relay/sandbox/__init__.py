"""A local Arthur Scope (REST API v3) to develop and test against, with faults on demand."""

from arthur_relay.sandbox.faults import Fault, Faults, Kind, Route
from arthur_relay.sandbox.journal import RecordedRequest
from arthur_relay.sandbox.models import InvalidModelError, attribute, demo_attributes
from arthur_relay.sandbox.server import ArthurSandbox
from arthur_relay.sandbox.store import ModelExistsError

__all__ = [
    "ArthurSandbox",
    "Fault",
    "Faults",
    "InvalidModelError",
    "Kind",
    "ModelExistsError",
    "RecordedRequest",
    "Route",
    "attribute",
    "demo_attributes",
]
