"""Output for people: messages on stderr, tables on stdout, a progress bar for long work."""

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

# texts of people stand in titles, cells and notes: [bold] and :x: are no markup anywhere
out = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 110)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)

FIRST_LINE_S, PLAIN_INTERVAL_S = 4.0, 30.0
"""Seconds to the first plain line of progress, and between lines, where no terminal can show a bar."""


_flags: dict[str, str] = {}
"""The spelling of settings on the command line; empty where no command runs, as in a notebook."""


def call_settings(flags: Mapping[str, str]) -> None:
    """Show settings by these names from now on: the library writes `` `max_tokens` `` in its messages, and users of the
    command line read ``--max-tokens``."""
    _flags.clear()
    _flags.update(flags)


def _spelled(message: str) -> str:
    return re.sub(r"`(\w+)`", lambda name: _flags.get(name[1], name[0]), message)


def say(message: str) -> None:
    err.print(Text(_spelled(message)), soft_wrap=True)


def show(text: str) -> None:
    """Print a text unchanged, such as an answer of a model."""
    err.print(Text(text), soft_wrap=True)


def warn(message: str) -> None:
    err.print(Text.assemble(("warning: ", "bold yellow"), _spelled(message)), soft_wrap=True)


def fail(message: str) -> None:
    err.print(Text.assemble(("error: ", "bold red"), _spelled(message)), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], notes: Sequence[str] = ()) -> None:
    """Print a small table: the first column is a name, the others are right-aligned figures. Notes stand below it."""
    if title:
        out.print(Text(_spelled(title), "bold"), soft_wrap=True)
    grid = Table()
    for i, column in enumerate(columns):
        grid.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        grid.add_row(*(Text(_spelled(format_cell(cell))) for cell in row))
    out.print(grid)
    for note in notes:
        out.print(Text.assemble(("! ", "bold yellow"), _spelled(note)), soft_wrap=True)


def format_cell(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.3f}" if abs(cell) < 100 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


@dataclass
class ProgressBar:
    """A running progress bar, or its state where no terminal can show one."""

    title: str
    total: int | None
    unit: str
    done: int = 0
    note: str = ""
    _bar: Progress | None = None
    _task: TaskID | None = None
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._before = self.done  # the work of an earlier run does not count for the speed of this one

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count ``count`` more units as done; ``note`` is shown behind the bar."""
        self.done += count
        self.note = self.note if note is None else note
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, note=self.note)

    def line(self) -> str:
        """The state as a line of text."""
        rate = (self.done - self._before) / max(1e-9, time.monotonic() - self._started)
        of = f"/{self.total}" if self.total is not None else ""
        eta = f", eta {timedelta(seconds=round((self.total - self.done) / rate))}" if self.total and rate else ""
        return f"{self.title}: {self.done}{of} {self.unit}, {rate:.3g} {self.unit}/s{eta}  {self.note}".rstrip()


@contextmanager
def progress(title: str, total: int | None, unit: str, done: int = 0) -> Iterator[ProgressBar]:
    """A bar on a terminal; elsewhere (logs, CI) a plain line every half minute, also while no result arrives.

    Args:
        done: units that an earlier run has done.
    """
    if not err.is_terminal:
        bar, over = ProgressBar(title, total, unit, done), Event()
        thread = Thread(target=_say_repeatedly, args=(bar, over), daemon=True)
        thread.start()
        try:
            yield bar
        finally:
            over.set()
            thread.join()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit, markup=False),
        TimeElapsedColumn(),
        TextColumn("eta", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=err, transient=True) as drawn:
        task = drawn.add_task(title, total=total, completed=done, note="")
        yield ProgressBar(title, total, unit, done, _bar=drawn, _task=task)


def _say_repeatedly(bar: ProgressBar, over: Event) -> None:
    wait = min(FIRST_LINE_S, PLAIN_INTERVAL_S)
    while not over.wait(wait):
        say(bar.line())
        wait = PLAIN_INTERVAL_S
