"""Views: spans and traces as the Engine's answers and the sandbox's page show them."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arthur_relay.sandbox.engine.store import StoredSpan

PREVIEW_CHARACTERS: Final = 600

_COUNTS: Final = {
    "prompt_token_count": "llm.token_count.prompt",
    "completion_token_count": "llm.token_count.completion",
    "total_token_count": "llm.token_count.total",
}
_STATUSES: Final = {0: "Unset", 1: "Ok", 2: "Error"}


def span_view(stored: StoredSpan) -> dict[str, Any]:
    """Return a span without its attributes, as lists have it."""
    span = stored.span
    found = span.attributes
    return {
        "id": str(stored.seq),
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_id or None,
        "span_kind": found.get("openinference.span.kind"),
        "span_name": span.name,
        "task_id": stored.task_id,
        "session_id": found.get("session.id"),
        "user_id": found.get("user.id"),
        "status_code": _STATUSES.get(span.status_code, "Unset"),
        "status_message": span.status_message or None,
        "start_time": _time(span.start_ns),
        "end_time": _time(span.end_ns),
        "duration_ms": _milliseconds(span.start_ns, span.end_ns),
        "input_content": found.get("input.value"),
        "output_content": found.get("output.value"),
        "model_name": found.get("llm.model_name"),
        **{name: found.get(attribute) for name, attribute in _COUNTS.items()},
    }


def full_span_view(stored: StoredSpan) -> dict[str, Any]:
    """Return a span with its attributes, events and resource."""
    span = stored.span
    return {
        **span_view(stored),
        "raw_data": {
            "attributes": span.attributes,
            "events": span.events,
            "resource": span.resource,
        },
    }


def trace_view(
    spans: Sequence[StoredSpan], annotation: dict[str, Any] | None, *, is_full: bool
) -> dict[str, Any]:
    """Return a trace: what its spans sum up to, and with them as a tree when it is full.

    Args:
        spans: The spans of one trace, in order of arrival; not empty.
        annotation: Its annotation, or None.
        is_full: Whether spans are in it, and texts are whole.
    """
    root = _root_of(spans)
    found = {} if root is None else root.span.attributes
    start = min(each.span.start_ns for each in spans)
    end = max(each.span.end_ns for each in spans)
    texts = (found.get("input.value"), found.get("output.value"))
    view = {
        "trace_id": spans[0].span.trace_id,
        "task_id": spans[-1].task_id,
        "name": spans[0].span.name if root is None else root.span.name,
        "start_time": _time(start),
        "end_time": _time(end),
        "duration_ms": _milliseconds(start, end),
        "input_content": texts[0] if is_full else _preview(texts[0]),
        "output_content": texts[1] if is_full else _preview(texts[1]),
        "session_id": _first(spans, "session.id"),
        "user_id": _first(spans, "user.id"),
        "span_count": len(spans),
        "has_error": any(each.span.status_code == 2 for each in spans),
        "annotations": [] if annotation is None else [annotation],
        **{name: _sum(spans, attribute) for name, attribute in _COUNTS.items()},
    }
    if is_full:
        view["root_spans"] = tree_of(spans)
    return view


def tree_of(spans: Sequence[StoredSpan]) -> list[dict[str, Any]]:
    """Return the spans of a trace as a tree, siblings by their start.

    Roots are those without a parent, and those whose parent has not come. A circle of parents is
    cut where it was entered first.
    """
    known = {each.span.span_id for each in spans}
    children: defaultdict[str, list[StoredSpan]] = defaultdict(list)
    roots: list[StoredSpan] = []
    for each in sorted(spans, key=attrgetter("span.start_ns")):
        parent = each.span.parent_id
        if not parent or parent not in known or parent == each.span.span_id:
            roots.append(each)
        else:
            children[parent].append(each)
    found: list[dict[str, Any]] = []
    shown: set[int] = set()
    # Without recursion: a chain of spans may be as deep as it likes.
    waiting = [(each, found) for each in reversed(roots)]
    left = iter(spans)
    while True:
        if not waiting:
            rest = next((each for each in left if each.seq not in shown), None)
            if rest is None:
                return found
            waiting.append((rest, found))
        stored, place = waiting.pop()
        if stored.seq in shown:
            continue
        shown.add(stored.seq)
        view = {**full_span_view(stored), "children": []}
        place.append(view)
        of_it = children.pop(stored.span.span_id, [])
        waiting += [(child, view["children"]) for child in reversed(of_it)]


def _root_of(spans: Sequence[StoredSpan]) -> StoredSpan | None:
    """Return the span that a trace takes its input and output from.

    Of several roots that is the earliest one of the last request with any, as the Engine has it.
    """
    roots = [each for each in spans if not each.span.parent_id]
    last = max((each.request for each in roots), default=0)
    latest = [each for each in roots if each.request == last]
    return min(latest, key=attrgetter("span.start_ns"), default=None)


def _first(spans: Sequence[StoredSpan], attribute: str) -> Any:
    values = (each.span.attributes.get(attribute) for each in spans)
    return next((value for value in values if value), None)


def _sum(spans: Sequence[StoredSpan], attribute: str) -> int | None:
    counts = [each.span.attributes.get(attribute) for each in spans]
    known = [count for count in counts if isinstance(count, (int, float))]
    return int(sum(known)) if known else None


def _preview(text: Any) -> str | None:
    return None if text is None else str(text)[:PREVIEW_CHARACTERS]


def _time(nanoseconds: int) -> str:
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat()
    except (OverflowError, ValueError):
        return datetime.fromtimestamp(0, UTC).isoformat()


def _milliseconds(start: int, end: int) -> float:
    return round((end - start) / 1e6, 3)
