"""The streams and consumers of a fleet: what they should be, and in what others differ. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from arthur_relay.broker.packets import BUCKETS, filters
from arthur_relay.broker.settings import BROKER_PREFIX
from arthur_relay.settings import ENVIRONMENT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.encoding.product import Product

DUPLICATE_WINDOW_SECONDS: Final = 300.0
"""How long the broker recognises a repeated message: far longer than a gateway repeats one."""

SHARED_BYTES: Final = 64 << 20
"""The size of what a fleet shares: an entry of 200 bytes for each packet that came again, and
thousands of models' schemas."""

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
        bytes_setting: The variable that `max_bytes` comes from, or "".
        is_bucket: Whether it has the last value of each key, as a key-value bucket.
    """

    name: str
    subjects: tuple[str, ...]
    is_queue: bool
    replicas: int
    max_bytes: int
    max_age_seconds: float
    is_bucket: bool = False
    bytes_setting: str = ""


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
        bytes_setting=f"{BROKER_PREFIX}BYTES",
    )


def shared_stream(settings: BrokerSettings) -> StreamPlan:
    """Return the plan of the key-value bucket that the fleet shares."""
    bucket = shared_bucket(settings)
    return StreamPlan(
        name=f"KV_{bucket}",
        subjects=(f"$KV.{bucket}.>",),
        is_queue=False,
        replicas=settings.replicas,
        max_bytes=SHARED_BYTES,
        max_age_seconds=0.0,
        is_bucket=True,
    )


def shared_bucket(settings: BrokerSettings) -> str:
    """Return the name of the key-value bucket that the fleet shares."""
    return f"{settings.stream}_SHARED"


def letters_stream(settings: BrokerSettings, max_bytes: int) -> StreamPlan:
    """Return the plan of the stream in which dead letters are."""
    name = f"{settings.stream}_DEAD"
    return StreamPlan(
        name=name,
        subjects=(f"{name}.>",),
        is_queue=False,
        replicas=settings.replicas,
        max_bytes=max_bytes,
        max_age_seconds=0.0,
        bytes_setting=f"{ENVIRONMENT_PREFIX}DEAD_LETTER_BYTES",
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


def stream_config(plan: StreamPlan) -> dict[str, object]:
    """Return what the configuration of a stream has to be, by the broker's own names.

    It has all that would lose rows, keep fewer copies of them, or refuse them, if it were other.
    """
    return {
        "name": plan.name,
        "subjects": list(plan.subjects),
        "retention": "workqueue" if plan.is_queue else "limits",
        "discard": "new",
        "storage": "file",
        "num_replicas": plan.replicas,
        "max_bytes": plan.max_bytes,
        "max_age": _nanoseconds(plan.max_age_seconds),
        "duplicate_window": _nanoseconds(DUPLICATE_WINDOW_SECONDS),
        "deny_purge": plan.is_queue,
        "max_msgs_per_subject": 1 if plan.is_bucket else -1,
        "allow_rollup_hdrs": plan.is_bucket,
        "allow_msg_ttl": plan.is_bucket,
        "max_msgs": -1,
        "max_msg_size": -1,
        "max_consumers": -1,
        "discard_new_per_subject": False,
        "no_ack": False,
        "sealed": False,
    }


def consumer_config(plan: ConsumerPlan) -> dict[str, object]:
    """Return what the configuration of a consumer has to be; see `stream_config`."""
    return {
        "durable_name": plan.name,
        "filter_subject": plan.subject,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": _nanoseconds(plan.ack_wait_seconds),
        "max_deliver": FOREVER,
        "max_ack_pending": plan.in_flight,
        "replay_policy": "instant",
        "deliver_subject": "",
        "headers_only": False,
        "mem_storage": False,
        "num_replicas": 0,
    }


_ABSENT: Final = ("mirror", "sources", "republish", "subject_transform", "persist_mode", "backoff")
"""What neither a stream nor a consumer of ours has: copies of other streams, acknowledgements
before a row is on a disk, and the like."""

_NANOSECONDS: Final = ("max_age", "duplicate_window", "ack_wait")


def stream_settings(plan: StreamPlan) -> dict[str, str]:
    """Return the variables that some of a stream's configuration comes from."""
    found = {"num_replicas": f"{BROKER_PREFIX}REPLICAS", "max_bytes": plan.bytes_setting}
    return {**found, "max_age": f"{BROKER_PREFIX}MAX_AGE_SECONDS"} if plan.is_queue else found


CONSUMER_SETTINGS: Final = {
    "ack_wait": f"{BROKER_PREFIX}ACK_WAIT_SECONDS",
    "max_ack_pending": f"{BROKER_PREFIX}IN_FLIGHT",
}
"""The same for a consumer."""


def differences(
    wanted: Mapping[str, object], found: Mapping[str, object], settings: Mapping[str, str]
) -> list[str]:
    """Return in what a stream or a consumer is not as it should be, in a few words each.

    Args:
        wanted: What it should be, by the broker's own names.
        found: What it is; the broker leaves out what is zero, false or empty.
        settings: The variables that some of it comes from.
    """
    expected = {**dict.fromkeys(_ABSENT), **wanted}
    return [
        _difference(name, value, found.get(name), settings.get(name))
        for name, value in expected.items()
        if (found.get(name) or _EMPTY) != (value or _EMPTY)
    ]


_EMPTY: Final = object()
"""Stands for whatever is zero, false or empty."""


def _difference(name: str, wanted: object, found: object, setting: str | None) -> str:
    source = f" ({setting})" if setting else ""
    return f"{name} is {_shown(name, found)}, not {_shown(name, wanted)}{source}"


def _shown(name: str, value: object) -> str:
    if name in _NANOSECONDS and isinstance(value, int):
        return f"{value / 1e9:g} s"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "not set" if value is None or value == "" else str(value)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
