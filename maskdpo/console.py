"""What people see: messages on stderr, tables on stdout, one progress bar for all long work."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

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

out = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
err = Console(stderr=True, highlight=False)

PLAIN_INTERVAL_S = 30.0
"""How often a plain line appears where there is no terminal for a bar."""


def say(message: str) -> None:
    err.print(Text(message))


def warn(message: str) -> None:
    err.print(Text.assemble(("warning: ", "bold yellow"), message), soft_wrap=True)


def fail(message: str) -> None:
    err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a small table: the first column is a name, the others are right-aligned figures."""
    grid = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        grid.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        grid.add_row(*(Text(format_cell(cell)) for cell in row))
    out.print(grid)


def format_cell(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.3f}" if abs(cell) < 100 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


@dataclass
class Ticker:
    """Handle of a running bar."""

    title: str
    total: int | None
    unit: str
    done: int = 0
    note: str = ""
    _bar: Progress | None = None
    _task: TaskID | None = None
    _started: float = field(default_factory=time.monotonic)
    _last_line: float = field(default_factory=time.monotonic)

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count ``count`` more units as done; ``note`` is shown behind the bar."""
        self.done += count
        self.note = self.note if note is None else note
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, note=self.note)
        elif time.monotonic() - self._last_line >= PLAIN_INTERVAL_S:
            self._last_line = time.monotonic()
            say(self._line())

    def _line(self) -> str:
        rate = self.done / max(1e-9, time.monotonic() - self._started)
        of = f"/{self.total}" if self.total is not None else ""
        return f"{self.title}: {self.done}{of} {self.unit}, {rate:.3g} {self.unit}/s  {self.note}".rstrip()


@contextmanager
def progress(title: str, total: int | None, unit: str) -> Iterator[Ticker]:
    """A bar on a terminal; elsewhere (logs, CI) a plain line every half minute."""
    if not err.is_terminal:
        yield Ticker(title, total, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(title, total=total, note="")
        yield Ticker(title, total, unit, _bar=bar, _task=task)
