"""What the packages of providers with a wire format of their own do not hand over."""

from __future__ import annotations

from .loss import NotHandedOver

NATIVE_NOT_HANDED_OVER: tuple[NotHandedOver, ...] = ()
