"""What `arthur-relay top` shows: the daemon's status as lines that fit on a terminal. Pure."""

from __future__ import annotations

from datetime import datetime
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.filesize import pick_unit_and_suffix
from rich.table import Table
from rich.text import Text

from arthur_relay.system.terminal import printable, printable_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

Status = dict[str, Any]

_KINDS: Final = {"good": "bold green", "warn": "bold yellow", "bad": "bold red"}
_BARS: Final = "▁▂▃▄▅▆▇█"
_FIXED_ROWS: Final = 13
"""The lines of everything but the facts, the models and the errors."""

_INDENT: Final = 11
"""The column in which facts and errors begin, behind their names and ages."""

_OURS: Final = "arthur-relay: "
"""What log lines begin with, for terminals that are shared with others."""


def products_of(status: Status) -> list[Status]:
    """Return the statuses of a daemon's products: one, or both."""
    return list(status.get("products") or [status])


def view(
    status: Status | None, *, problem: str, width: int, height: int, footer: str
) -> RenderableType:
    """Return the screen.

    Args:
        status: The daemon's last answer, or None when there was none so far.
        problem: Why it says nothing now, or "".
        width: Columns.
        height: Rows.
        footer: The last line.
    """
    # Its models' ids and its errors are what clients and Arthur have sent.
    status = None if status is None else printable_document(status)
    problem, footer = printable(problem), printable(footer)
    lines: list[RenderableType] = []
    if status is None:
        lines = [Text("arthur-relay", "bold"), _state("bad" if problem else "", problem)]
        if not problem:
            lines[1] = Text("Asking the daemon…", "dim")
    else:
        lines = _lines(status, problem, width, height)
    if footer:
        lines.append(Text(footer, "dim"))
    return Group(*lines)


def _lines(s: Status, problem: str, width: int, height: int) -> list[RenderableType]:
    facts = _facts(s, width)
    room = max(2, height - _FIXED_ROWS - len(facts))
    errors = min(len(s["errors"]), max(1, room // 2))
    models = min(len(s["models"]), max(1, room - max(1, errors)))
    errors = max(1, room - max(1, models))
    title = Text.assemble(
        ("arthur-relay ", "bold"),
        (f"{_role(s)}{s['version']} · {_whither(s)} · up for {span(s['uptime_seconds'])}", "dim"),
    )
    if problem:
        seen = datetime.fromisoformat(s["now"]).astimezone().strftime("%H:%M:%S")
        said = _state("bad", f"The daemon is gone; what is shown below is of {seen}")
        detail = Text(problem, "red")
    else:
        said = _state(s["state"]["kind"], s["state"]["title"])
        detail = Text(s["state"]["detail"])
    found: list[RenderableType] = [title, said, detail, Text(), _numbers(s, width), Text()]
    for line in found[:3]:
        if isinstance(line, Text):
            line.truncate(width, overflow="ellipsis")
    return [
        *found,
        *facts,
        Text(),
        _models(s, models),
        *_errors(s, errors, width),
    ]


def _role(s: Status) -> str:
    """Return what the daemon is in a fleet, and a separator; nothing for a host."""
    role = s.get("role", "host")
    return "" if role == "host" else f"{role} · "


def _whither(s: Status) -> str:
    """Return where rows go; the product is named by daemons that know it."""
    product = s.get("product")
    return str(s["destination"]) if product is None else f"{product}, {s['destination']}"


def _numbers(s: Status, width: int) -> Table:
    rows, rates, queue = s["rows"], s["rates"], s["queue"]
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=9, style="dim")
    table.add_column(min_width=9, justify="right", style="bold")
    table.add_column(min_width=26, no_wrap=True)
    table.add_column(no_wrap=True)
    graph = max(8, width - 54)
    table.add_row(
        "taken in",
        rate(rates["accepted_per_second"]),
        f"{_taken_in(s):,} in all",
        Text(_graph(s["history"], "accepted_per_second", graph), "cyan"),
    )
    table.add_row(
        "delivered",
        rate(rates["delivered_per_second"]),
        "by workers" if s.get("role") == "gateway" else f"{rows['delivered']:,} in all",
        Text(_graph(s["history"], "delivered_per_second", graph), "green"),
    )
    table.add_row(
        "waiting",
        f"{queue['rows']:,}",
        _waits(s),
        Text(_graph(s["history"], "pending", graph), "yellow"),
    )
    broker = s.get("broker")
    if broker is None:
        _add_fullness(table, "spool", queue["spool_bytes"], queue["spool_limit_bytes"], graph)
    else:
        _add_fullness(table, "broker", broker["bytes"], broker["limit_bytes"], graph)
    return table


def _waits(s: Status) -> str:
    """Return since when rows wait; in a fleet the broker has them, and their age."""
    role, queue = s.get("role"), s["queue"]
    if role == "gateway":
        return "the broker has what waits"
    if not queue["rows"]:
        return "no row waits"
    return "in hand" if role == "worker" else f"the oldest for {span(queue['oldest_age_seconds'])}"


def _add_fullness(table: Table, name: str, taken: int | None, limit: int, graph: int) -> None:
    """Add a line with how full something is, as far as is known."""
    if taken is None:
        table.add_row(name, "-", f"of {size(limit)}", "")
        return
    fullness = taken / limit
    bar = min(graph, round(fullness * graph))
    table.add_row(
        name,
        Text(percent(fullness), "bold red" if fullness >= 0.9 else "bold"),
        f"{size(taken)} of {size(limit)}",
        Text("█" * bar + "░" * (graph - bar), "dim"),
    )


def _fleet(broker: Mapping[str, Any], width: int) -> list[Text]:
    """Return lines on what waits in the broker, and who is there."""
    if not broker["connected"]:
        return _fact(width, "fleet", "not connected to the broker")
    oldest = broker["oldest_age_seconds"]
    return _fact(
        width,
        "fleet",
        f"{_known(broker['waiting_packets'])} packets wait",
        f"{_known(broker['in_flight_packets'])} in flight",
        f"the oldest for {span(oldest)}" if oldest else "",
        f"{_known(broker['gateways'])} gateways",
        f"{_known(broker['workers'])} workers",
    )


def _known(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _taken_in(s: Status) -> int:
    """Return the rows that were taken in; a gateway has those that clients sent, and no others."""
    found = s["intake"]["rows"].get("accepted", 0)
    return int(found if s.get("role") == "gateway" else s["rows"]["captured"])


def _facts(s: Status, width: int) -> list[Text]:
    rows, delivery, intake, letters = s["rows"], s["delivery"], s["intake"], s["dead_letters"]
    lost = [
        (name, rows[name], _most(rows[f"{name}_by_reason"])) for name in ("rejected", "dropped")
    ]
    line = Text()
    for name, count, reason in lost:
        line.append(f"{count:,} {name}", "bold red" if count else "")
        line.append(f" ({reason})   " if reason else "   ")
    if s.get("role") != "gateway":  # which keeps none
        line.append(f"{letters['kept']:,} dead letters")
    if gone := letters.get("evicted"):
        line.append(f", {gone:,} gone", "bold red")
    opened = f", opened {delivery['breaker_opened']}x" if delivery["breaker_opened"] else ""
    connections = sum(
        count for listener, count in intake["connections"].items() if listener != "views"
    )
    line.truncate(width, overflow="ellipsis")
    return [
        line,
        *([] if s.get("broker") is None else _fleet(s["broker"], width)),
        *_fact(
            width,
            "arthur",
            f"breaker {delivery['breaker']}{opened}",
            f"{delivery['in_flight']} of {delivery['in_flight_limit']} in flight",
            within(delivery["seconds"]),
            f"{delivery['requests']:,} requests, {delivery['retries']:,} retries",
        ),
        *_fact(
            width,
            "intake",
            f"{connections:,} connections",
            f"{intake['rows'].get('refused', 0):,} refused",
            f"{intake['rows'].get('deferred', 0):,} put off",
            within(intake["seconds"]),
        ),
    ]


def _fact(width: int, name: str, *parts: str) -> list[Text]:
    """Return what is known of something, in as many lines as it takes."""
    texts: list[str] = []
    for part in filter(None, parts):
        longer = f"{texts[-1]} · {part}" if texts else part
        if texts and len(longer) <= width - _INDENT:
            texts[-1] = longer
        else:
            texts.append(part)
    return _indented(Text(name, "dim"), texts, width)


def _indented(head: Text, texts: Sequence[str], width: int) -> list[Text]:
    """Return lines behind the head of the first one."""
    head.pad_right(_INDENT - len(head))
    lines = [
        Text.assemble(head if at == 0 else " " * _INDENT, text) for at, text in enumerate(texts)
    ]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _models(s: Status, most: int) -> RenderableType:
    models: Sequence[Mapping[str, Any]] = s["models"]
    if not models and s.get("role") == "gateway":
        return Text("Workers count rows by model.", "dim")
    if not models:
        return Text("No row has come in yet.", "dim")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("model", no_wrap=True, ratio=1)
    for name in ("taken in", "delivered", "waiting", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    for model in models[:most]:
        lost = model["rejected"] + model["dropped"]
        table.add_row(
            Text("all others" if model["id"] == "other" else model["id"]),
            *(f"{model[key]:,}" for key in ("captured", "delivered", "pending")),
            Text(f"{lost:,}", "red" if lost else ""),
        )
    return table


def _errors(s: Status, most: int, width: int) -> list[RenderableType]:
    """Return the latest errors: as many as there is room for, and then as much of each."""
    if not s["errors"]:
        return [Text("no errors since the start", "dim")]
    now = datetime.fromisoformat(s["now"])
    lines: list[RenderableType] = [Text("last errors", "dim")]
    errors = s["errors"][:most]
    spare = most - len(errors)
    for error in errors:
        seconds = max(0.0, (now - datetime.fromisoformat(error["at"])).total_seconds())
        times = f"{error['times']:,}x " if error["times"] > 1 else ""
        whole = times + error["text"].removeprefix(_OURS)
        texts = wrap(whole, max(1, width - _INDENT))
        if len(texts) - 1 > spare:
            texts = [*texts[:spare], " ".join(texts[spare:])]
        spare -= len(texts) - 1
        lines += _indented(Text(f"{span(seconds):>9}", "dim"), texts, width)
    return lines


def _state(kind: str, text: str) -> Text:
    return Text(text, _KINDS.get(kind, ""))


def _graph(history: Sequence[Mapping[str, float]], key: str, columns: int) -> str:
    values = [point[key] for point in history[-columns:]]
    most = max(values, default=0) or 1
    return "".join([_BARS[round(value / most * (len(_BARS) - 1))] for value in values])


def _most(reasons: Mapping[str, int]) -> str:
    return max(reasons, key=reasons.__getitem__, default="").replace("_", " ")


def rate(value: float | None) -> str:
    """Return rows a second, for people."""
    if value is None:
        return "-"
    return f"{value:.1f}/s" if 0 < value < 10 else f"{value:,.0f}/s"


def percent(share: float) -> str:
    """Return a share in percent."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{share:.1%}".replace("%", " %") if 0 < share < 0.1 else f"{share * 100:.0f} %"


def size(count: float) -> str:
    """Return bytes, for people."""
    unit, name = pick_unit_and_suffix(int(count), ["B", "KiB", "MiB", "GiB", "TiB"], 1024)
    digits = 1 if unit > 1 and count < 10 * unit else 0
    return f"{count / unit:.{digits}f} {name}"


def span(seconds: float) -> str:
    """Return a duration, for people."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{int(seconds)} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min"
    if seconds < 86400:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    return f"{int(seconds // 86400)} d {int(seconds % 86400 // 3600)} h"


def within(found: Mapping[str, float | None]) -> str:
    """Return how long nearly all requests take, or "" when that is not known."""
    most = found["p95"]
    return "" if most is None else f"95 % within {span(most)}"
