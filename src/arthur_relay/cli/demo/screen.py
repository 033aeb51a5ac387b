"""The demo on a terminal: the conversation, live counters beside it, and a timeline below."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from arthur_relay.cli.demo.view import counters, excerpt
from arthur_relay.system.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from arthur_relay.cli.demo.recording import Recording, Slice
    from arthur_relay.cli.demo.stage import Stage
    from arthur_relay.stats import Stats

_BARS: Final = "▁▂▃▄▅▆▇█"
_SIDE_COLUMNS: Final = 28
_LABEL_COLUMNS: Final = 10
_MOST_ROWS: Final = 27
_NOTES: Final = 3
_OTHER_ROWS: Final = 5 + 1 + _NOTES + 1  # the timeline, the page, the notes, the cursor


class ScreenView:
    """Draws the demo anew several times a second, in as much of the terminal as it needs.

    Args:
        console: The terminal.
        stage: Who plays.
        recording: What is shown of the stream and of the relay.
        turns: How many turns there will be.
    """

    def __init__(self, console: Console, stage: Stage, recording: Recording, turns: int) -> None:
        self._console = console
        self._stage = stage
        self._recording = recording
        self._turns = turns
        self._number = 0
        # What was said, in whole turns; the answer that is being streamed is apart, so that the
        # streaming thread only ever appends.
        self._said: deque[Text] = deque(maxlen=24)
        self._answer: list[str] = []
        self._is_streaming = False
        self._notes: deque[str] = deque(maxlen=_NOTES)
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.__enter__()
        self.refresh()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def asked(self, number: int, prompt: str) -> None:
        """Show a turn's prompt."""
        if self._answer:
            self._said.append(_line("model", "".join(self._answer), "green"))
        self._answer = []
        self._said.append(_line("you", excerpt(prompt, 400), "cyan"))
        self._number = number
        self._is_streaming = True

    def token(self, text: str) -> None:
        """Show a piece of the answer, with the next refresh."""
        self._answer.append(text)

    def answered(self, stats: Stats, tokens_per_second: float) -> None:  # noqa: ARG002 - View's
        """Take the cursor away; the counters are up to date anyway."""
        self._is_streaming = False

    def note(self, text: str) -> None:
        """Show a note, below, until newer ones push it out."""
        self._notes.append(text)

    def refresh(self) -> None:
        """Draw everything anew."""
        self._live.update(self.render(), refresh=True)

    def render(self) -> RenderableType:
        """Return what the screen shows now."""
        rows = max(8, min(_MOST_ROWS, self._console.height) - _OTHER_ROWS)
        columns = self._console.width
        top = Table.grid(expand=True)
        top.add_column(ratio=1)
        top.add_column(width=_SIDE_COLUMNS)
        top.add_row(
            self._conversation(rows, columns - _SIDE_COLUMNS),
            Panel(self._counters(), title="arthur-relay", height=rows, padding=(1, 1, 0, 1)),
        )
        notes = [
            Text(f" {printable(note)}", style="dim", overflow="ellipsis", no_wrap=True)
            for note in self._notes
        ]
        blank = [Text("")] * (_NOTES - len(notes))
        return Group(top, self._timeline(columns), self._address(), *notes, *blank)

    def _conversation(self, rows: int, columns: int) -> Panel:
        """Return the end of what was said, as much as fits."""
        cursor = "▌" if self._is_streaming else ""
        said = [*self._said, _line("model", "".join(self._answer) + cursor, "green")]
        lines: list[Text] = []
        for text in reversed(said):
            lines[:0] = text.wrap(self._console, columns - 4)
            if len(lines) >= rows - 2:
                break
        return Panel(
            Text("\n").join(lines[-(rows - 2) :]),
            title=f"{self._stage.who}, streaming",
            subtitle=f"turn {self._number} of {self._turns}",
            height=rows,
        )

    def _counters(self) -> Table:
        table = Table.grid(expand=True)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        samples = self._recording.samples
        if self._recording.is_away:
            state = Text(f"away {self._recording.outage_seconds:.1f} s", style="bold red")
        else:
            state = Text("● there", style="bold green")
        table.add_row("Arthur", state)
        table.add_row()
        if samples:
            for name, value in counters(samples[-1].stats).items():
                style = "bold yellow" if name == "pending" and value else "bold"
                table.add_row(name, Text(str(value), style=style))
        table.add_row()
        table.add_row(Text("tokens/s", style="dim"))
        table.add_row(" Arthur there", f"{self._recording.there.per_second:.1f}")
        if self._recording.away.tokens:
            pace = f"{self._recording.away.per_second:.1f}"
            table.add_row(" Arthur away", Text(pace, style="bold"))
        return table

    def _address(self) -> Text:
        url = self._stage.arthur_url
        if self._stage.sandbox is None:
            return Text(f" Arthur is at {url}", style="dim")
        return Text.assemble(
            (" Arthur's page: ", "bold"),
            (f"{url}/", f"underline link {url}/"),
            "  (watch it there)",
        )

    def _timeline(self, columns: int) -> Panel:
        slices, seconds = self._recording.timeline(columns - _LABEL_COLUMNS - 5)
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=_LABEL_COLUMNS)
        table.add_column(no_wrap=True)
        table.add_row("tokens/s", _bars([each.tokens_per_second for each in slices], slices))
        table.add_row("pending", _bars([float(each.pending) for each in slices], slices))
        table.add_row("Arthur", _presence(slices))
        return Panel(table, title="over time", subtitle=f"{seconds:g} s a bar", height=5)


def _line(who: str, text: str, style: str) -> Text:
    return Text.assemble((f"{who:<6}", f"bold {style}"), printable(text, keep="\n"))


def _bars(values: Sequence[float], slices: Sequence[Slice]) -> Text:
    """Return a bar for each value, the highest for the largest; red while Arthur is away."""
    most = max(values, default=0.0) or 1.0
    text = Text()
    for value, each in zip(values, slices, strict=True):
        # Nothing has a base line, and little is more than that.
        height = 0 if value == 0 else max(1, round(value / most * (len(_BARS) - 1)))
        bar = _BARS[height]
        text.append(bar, style="red" if each.away else "green")
    return text


def _presence(slices: Sequence[Slice]) -> Text:
    text = Text()
    for each in slices:
        text.append("╌" if each.away else "━", style="red" if each.away else "green")
    return text
