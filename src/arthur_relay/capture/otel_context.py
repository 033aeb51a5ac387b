"""What OpenTelemetry's current context says about a run, if the application uses OpenTelemetry.

The package is never imported here: an application that has set something there has imported it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from arthur_relay.inference import TraceContext

if TYPE_CHECKING:
    from collections.abc import Mapping

ATTRIBUTES = (
    "session.id",
    "user.id",
    "metadata",
    "tag.tags",
    "llm.prompt_template.template",
    "llm.prompt_template.version",
    "llm.prompt_template.variables",
)
"""What OpenInference's `using_attributes` and Arthur's `arthur.attributes` set for all spans."""


_SUPPRESSED = "suppress_instrumentation"
"""The key by which older instrumentors know it; the API's own has a random part."""


def outer_span() -> TraceContext | None:
    """Return the place below OpenTelemetry's current span, or None when there is none."""
    tracing = sys.modules.get("opentelemetry.trace")
    if tracing is None:
        return None
    span = tracing.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return TraceContext(
        span.trace_id.to_bytes(16, "big"), span.span_id.to_bytes(8, "big"), is_root=True
    )


def is_suppressed() -> bool:
    """Return whether the context asks for no spans: `suppress_tracing`, `suppress_instrumentation`.

    OpenInference and OpenTelemetry's instrumentors ask for the same key.
    """
    context = sys.modules.get("opentelemetry.context")
    if context is None:
        return False
    current = context.get_current()
    return bool(current) and bool(
        current.get(getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", _SUPPRESSED))
        or current.get(_SUPPRESSED)
    )


def context_attributes() -> Mapping[str, Any] | None:
    """Return the attributes that the context has for every span, or None when it has none."""
    context = sys.modules.get("opentelemetry.context")
    if context is None:
        return None
    current = context.get_current()
    if not current:
        return None
    return {name: current[name] for name in ATTRIBUTES if name in current} or None
