"""How a demo is shown: drawn live on a terminal, or a line a turn for logs and pipes."""

import contextlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Self, TypeAlias

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from arthur_relay.cli.demo.recording import SAMPLE_SECONDS, Recording, Slice
from arthur_relay.cli.demo.stage import Stage
from arthur_relay.stats import Stats
from arthur_relay.system.terminal import printable

_COUNTERS: Final = ("captured", "pending", "delivered", "retries")
"""The relay's counts that are shown."""

_BARS: Final = "▁▂▃▄▅▆▇█"
_SIDE_COLUMNS: Final = 28
_LABEL_COLUMNS: Final = 10
_MOST_ROWS: Final = 27
_NOTES: Final = 3
_OTHER_ROWS: Final = 5 + 1 + _NOTES + 1  # the timeline, the page, the notes, the cursor


class PlainView:
    """Writes one line for each turn and for each note. Any thread may call `note`.

    Args:
        turns: How many turns there will be.
    """

    def __init__(self, turns: int) -> None:
        self._turns = turns
        self._prompt = ""
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Do nothing: there is nothing to undo."""

    def asked(self, number: int, prompt: str) -> None:
        """Remember the turn."""
        self._number, self._prompt = number, prompt

    def token(self, text: str) -> None:
        """Leave the answer out: it would hide everything else."""

    def answered(self, stats: Stats, tokens_per_second: float) -> None:
        """Write the turn's line."""
        place = f"{self._number:>{len(str(self._turns))}}/{self._turns}"
        counts = "  ".join(f"{name} {getattr(stats, name):<3}" for name in _COUNTERS)
        pace = f"{tokens_per_second:5.1f} tokens/s"
        self._write(f"{place}  {counts}  {pace}  {excerpt(self._prompt)}")

    def note(self, text: str) -> None:
        """Write the note."""
        self._write(f"-- {text}")

    def _write(self, line: str) -> None:
        # In one write, because several threads write at the same time.
        print(f"{printable(line)}\n", end="", flush=True)


class ScreenView:
    """Draws the demo anew several times a second, in as much of the terminal as it needs.

    Any thread may call `note`.

    Args:
        console: The terminal.
        stage: What the demo runs with.
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
        self._live = Live(
            get_renderable=self.render,
            console=console,
            refresh_per_second=1 / SAMPLE_SECONDS,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    def asked(self, number: int, prompt: str) -> None:
        """Show a turn's prompt."""
        if self._answer:
            self._said.append(_line("model", "".join(self._answer), "green"))
        self._answer = []
        self._said.append(_line("you", excerpt(prompt, 400), "cyan"))
        self._number = number
        self._is_streaming = True

    def token(self, text: str) -> None:
        """Show a piece of the answer, when it is drawn next."""
        self._answer.append(text)

    def answered(self, stats: Stats, tokens_per_second: float) -> None:  # noqa: ARG002 - as PlainView
        """Remove the cursor; the counters are up to date anyway."""
        self._is_streaming = False

    def note(self, text: str) -> None:
        """Show a note below, until newer ones replace it."""
        self._notes.append(text)

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
            for note in tuple(self._notes)  # others append to it meanwhile
        ]
        blank = [Text("")] * (_NOTES - len(notes))
        return Group(top, self._timeline(columns), self._address(), *notes, *blank)

    def _conversation(self, rows: int, columns: int) -> Panel:
        """Return the end of the conversation, as much as fits."""
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
        there, away = self._recording.there, self._recording.away
        if self._recording.is_away:
            state = Text(f"away {self._recording.outage_seconds:.1f} s", style="bold red")
        else:
            state = Text("● there", style="bold green")
        table.add_row("Arthur", state)
        table.add_row()
        for sample in self._recording.samples[-1:]:
            for name in _COUNTERS:
                count = getattr(sample.stats, name)
                style = "bold yellow" if name == "pending" and count else "bold"
                table.add_row(name, Text(str(count), style=style))
        table.add_row()
        table.add_row(Text("tokens/s", style="dim"))
        table.add_row(" Arthur there", f"{there.per_second:.1f}")
        if away.tokens:
            table.add_row(" Arthur away", Text(f"{away.per_second:.1f}", style="bold"))
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
        presence = "".join(["╌" if each.away else "━" for each in slices])
        for label, line in (
            ("tokens/s", _bars([each.tokens_per_second for each in slices])),
            ("pending", _bars([each.pending for each in slices])),
            ("Arthur", presence),
        ):
            table.add_row(label, _red_while_away(line, slices))
        return Panel(table, title="over time", subtitle=f"{seconds:g} s a bar", height=5)


View: TypeAlias = PlainView | ScreenView
"""Shows a demo while it runs."""


@contextlib.contextmanager
def logging_to(view: View) -> Iterator[None]:
    """Show what the relay logs as notes, inside of the block, and nowhere else."""
    logger = logging.getLogger("arthur_relay")
    handler = _NoteHandler(view)
    before = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate, level = before
        logger.setLevel(level)


class _NoteHandler(logging.Handler):
    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        self._view.note(f"log: {record.getMessage()}")


def excerpt(text: str, characters: int = 24) -> str:
    """Return a text's beginning, on one line."""
    line = " ".join(text[: characters * 4].split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"


def _line(who: str, text: str, style: str) -> Text:
    return Text.assemble((f"{who:<6}", f"bold {style}"), printable(text, keep="\n"))


def _bars(values: Sequence[float]) -> str:
    """Return a bar for each value, the highest for the largest."""
    most = max(values, default=0.0) or 1.0
    # Nothing has a base line, and little is more than that.
    heights = [max(1, round(value / most * (len(_BARS) - 1))) if value else 0 for value in values]
    return "".join([_BARS[height] for height in heights])


def _red_while_away(line: str, slices: Sequence[Slice]) -> Text:
    styles = ["red" if each.away else "green" for each in slices]
    return Text.assemble(*zip(line, styles, strict=True))
