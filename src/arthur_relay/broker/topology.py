"""The streams and consumers of a fleet: what they should be, and in what others differ. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from arthur_relay.broker.packets import BUCKETS, filters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.encoding.product import Product

DUPLICATE_WINDOW_SECONDS: Final = 300.0
"""How long the broker recognises a repeated message: far longer than a gateway repeats one."""

SHARED_BYTES: Final = 64 << 20
"""What the key-value bucket may take: thousands of models' schemas."""

FOREVER: Final = -1
"""How often a packet is handed out: until it is acknowledged. A bound would hide it, not end it."""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What a stream should be.

    Attributes:
        name: Its name.
        subjects: What it takes.
        is_queue: Whether messages leave it when they are acknowledged.
        replicas: The servers that keep each message.
        max_bytes: The most bytes; more is refused.
        max_age_seconds: How long messages are kept; 0 for ever.
        max_of_subject: The most messages of one subject, of which older ones give way; -1 for any
            number.
    """

    name: str
    subjects: tuple[str, ...]
    is_queue: bool
    replicas: int
    max_bytes: int
    max_age_seconds: float
    max_of_subject: int = -1


@dataclass(frozen=True, slots=True)
class ConsumerPlan:
    """What a consumer should be.

    Attributes:
        name: Its name, which outlives its users.
        subject: What it hands out.
        ack_wait_seconds: After how long it hands a packet out again.
        in_flight: The packets that its users have in hand, at most.
    """

    name: str
    subject: str
    ack_wait_seconds: float
    in_flight: int


def rows_stream(settings: BrokerSettings) -> StreamPlan:
    """Return the plan of the stream in which rows wait."""
    return StreamPlan(
        name=settings.stream,
        subjects=(f"{settings.stream}.>",),
        is_queue=True,
        replicas=settings.replicas,
        max_bytes=settings.bytes,
        max_age_seconds=settings.max_age_seconds,
    )


def shared_bucket(stream: str) -> str:
    """Return the name of the key-value bucket of the fleet whose rows are in a stream."""
    return f"{stream}_SHARED"


def shared_stream(settings: BrokerSettings) -> StreamPlan:
    """Return the plan of the stream that a key-value bucket is."""
    bucket = shared_bucket(settings.stream)
    return StreamPlan(
        name=f"KV_{bucket}",
        subjects=(f"$KV.{bucket}.>",),
        is_queue=False,
        replicas=settings.replicas,
        max_bytes=SHARED_BYTES,
        max_age_seconds=0.0,
        max_of_subject=1,
    )


def consumers(settings: BrokerSettings, product: Product) -> list[ConsumerPlan]:
    """Return the plans of the consumers of one product."""
    return [
        ConsumerPlan(
            name=name,
            subject=subject,
            ack_wait_seconds=settings.ack_wait_seconds,
            in_flight=settings.in_flight // (BUCKETS + 1),
        )
        for name, subject in filters(settings.stream, product).items()
    ]


def differences(wanted: Mapping[str, object], found: Mapping[str, object]) -> list[str]:
    """Return in what a stream or a consumer is not as it should be, in a few words each.

    Args:
        wanted: What it should be, by the broker's own names.
        found: What it is.
    """
    return [
        f"{name} is {found.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
