"""A local Arthur Scope and Arthur Engine to develop and test against, with faults on demand."""

from arthur_relay.system.extras import needed_by

with needed_by("The sandbox"):
    from arthur_relay.sandbox.engine.keys import Role
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
    "Role",
    "Route",
    "attribute",
    "demo_attributes",
]
