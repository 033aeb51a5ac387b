"""Dead letters of a fleet: they are in the broker, in a stream of their own. Pure.

A letter is one message. Its subject says its product, its reason and its model, so that the broker
counts letters by reason without reading any; its body has the rest. A letter is safe once the
broker has acknowledged it, and no packet is acknowledged before the letters of its rows are safe.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import msgspec

from arthur_relay.broker.inbox import HeldPacket
from arthur_relay.broker.packets import PRODUCTS, model_token
from arthur_relay.dead_letters import (
    DeadLetter,
    damaged,
    read_letter,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arthur_relay.encoding.product import Product

logger = logging.getLogger("arthur_relay.broker")

NO_PACKET: Final = "no packet"
"""The reason of a letter that has a message which is no packet of the product's."""

MOST_REASON_CHARACTERS: Final = 64
"""Reasons are a few words; of a longer one, the subject has so much."""

MOST_ID_CHARACTERS: Final = 1000
"""So much of an id is kept where the whole letter does not fit."""


def subject_of(letter: DeadLetter, stream: str, product: Product) -> str:
    """Return the subject of a letter's message."""
    token = model_token(letter.model_id)
    return f"{stream}.{PRODUCTS[product]}.{reason_token(letter.reason)}.{token}"


def reason_token(reason: str) -> str:
    """Return a reason as a part of a subject; `reason_of` reads it."""
    if len(reason) > MOST_REASON_CHARACTERS:
        reason = reason[: MOST_REASON_CHARACTERS - 1] + "…"
    return quote(reason or "?", safe="", errors="backslashreplace").replace(".", "%2E")


def reason_of(subject: str) -> str:
    """Return the reason that a subject has, or "?"."""
    parts = subject.split(".")
    return unquote(parts[-2]) if len(parts) > 2 else "?"


def count_by_reason(subjects: Mapping[str, int]) -> dict[str, int]:
    """Return how many letters there are of each reason, of those of each subject."""
    counts: Counter[str] = Counter()
    for subject, letters in subjects.items():
        counts[reason_of(subject)] += letters
    return dict(counts)


def letter_id(letter: DeadLetter, of: object | None) -> str:
    """Return what the broker recognises a letter by.

    It is the same when the row is rejected again because its packet was handed out again: that is
    the same letter. A row that a client sends again is another packet's, and so is its letter.

    Args:
        letter: The letter.
        of: The packet that its row came in, if there is one.
    """
    source = of.name if isinstance(of, HeldPacket) else uuid.uuid4().hex
    about = (source, letter.inference_id, letter.model_id, letter.kind.value, letter.reason)
    return hashlib.sha256(repr(about).encode() + letter.body).hexdigest()


def encode(letter: DeadLetter, name: str, *, most_bytes: int) -> bytes:
    """Return the body of a letter's message; without the row where that does not fit.

    Args:
        letter: The letter.
        name: What the broker recognises it by.
        most_bytes: The most bytes of the message's body.
    """
    if len(found := _encoded(letter, name)) <= most_bytes:
        return found
    short = replace(letter, body=b"", damage="too large")
    if len(found := _encoded(short, name)) <= most_bytes:
        return found
    texts = {
        each: getattr(short, each)[:MOST_ID_CHARACTERS]
        for each in ("inference_id", "model_id", "reason", "destination", "said")
    }
    return _encoded(replace(short, **texts), name)


def _encoded(letter: DeadLetter, name: str) -> bytes:
    found: dict[str, Any] = {
        "id": name,
        "inference_id": _text(letter.inference_id),
        "model_id": _text(letter.model_id),
        "kind": letter.kind.value,
        "reason": _text(letter.reason),
        "status": letter.status,
        "attempts": letter.attempts,
        "rejected_at": letter.rejected_at.isoformat(),
        "destination": _text(letter.destination),
        "body": letter.body,
    }
    if letter.said:
        found["said"] = _text(letter.said)
    if letter.damage:
        found["damage"] = _text(letter.damage)
    return msgspec.msgpack.encode(found)


def _text(text: str) -> str:
    """Return a text without halves of surrogate pairs, which have no bytes."""
    return text.encode(errors="backslashreplace").decode()


def decode(body: bytes) -> tuple[str, DeadLetter]:
    """Return the letter of a message, and what the broker recognises it by. Never raises."""
    try:
        found = msgspec.msgpack.decode(body, type=dict[str, Any])
    except (RecursionError, msgspec.MsgspecError) as error:
        return "", damaged(f"{type(error).__name__} in what was written", body)
    row, damage = found.get("body"), found.get("damage")
    letter = read_letter(found, row if isinstance(row, bytes) else b"")
    if isinstance(damage, str) and not letter.damage:
        letter = replace(letter, damage=damage)
    name = found.get("id")
    return name if isinstance(name, str) else "", letter


def of_no_packet(why: str, body: bytes, stream: str) -> DeadLetter:
    """Return the letter of a message that is no packet of the product's.

    Args:
        why: What is wrong with it.
        body: The message's body.
        stream: The stream that it was in.
    """
    return replace(
        damaged(why, body), reason=NO_PACKET, rejected_at=datetime.now(UTC), destination=stream
    )
