"""Output for people: messages on stderr, tables on stdout, a progress bar for long work."""

import re
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Event, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
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


def spelled(message: str) -> str:
    """A message with settings as the command line spells them, where a command runs."""
    return re.sub(r"`(\w+)`", lambda name: _flags.get(name[1], name[0]), message)


def say(message: str) -> None:
    err.print(Text(spelled(message)), soft_wrap=True)


def show(text: str) -> None:
    """Print a text unchanged, such as an answer of a model."""
    err.print(Text(text), soft_wrap=True)


def warn(message: str) -> None:
    err.print(Text.assemble(("warning: ", "bold yellow"), spelled(message)), soft_wrap=True)


def fail(message: str) -> None:
    err.print(Text.assemble(("error: ", "bold red"), spelled(message)), soft_wrap=True)


def counted(number: int, one: str, more: str | None = None) -> str:
    """``1 pair``, ``1,234 pairs``; ``more`` is the plural where it does not only end in an s, as of ``prompt has``."""
    return f"1 {one}" if number == 1 else f"{number:,} {more or one + 's'}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], notes: Sequence[str] = ()) -> None:
    """Print a small table: the first column is a name, the others are right-aligned figures. Notes stand below it."""
    if title:
        out.print(Text(spelled(title), "bold"), soft_wrap=True)
    grid = Table()
    for i, column in enumerate(columns):
        grid.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        grid.add_row(*(Text(spelled(format_cell(cell))) for cell in row))
    out.print(grid)
    for note in notes:
        out.print(Text.assemble(("! ", "bold yellow"), spelled(note)), soft_wrap=True)


def format_cell(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.3f}" if abs(cell) < 100 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


@dataclass
class ProgressBar:
    """A running progress bar, or its state where no terminal can show one.

    The time left follows from *work* (tokens, characters: any number that grows with the time that it takes), by the
    pace of the later half of the run so far: the time for a start, as the loading of a model, does not count for ever.
    """

    title: str
    total: int | None
    unit: str
    done: int = 0
    work: float | None = None
    """The work of this run, where it is known before; else what is left is taken to have the mean of what is done."""
    note: str = ""
    _bar: Progress | None = None
    _task: TaskID | None = None
    _worked: float = 0.0

    def __post_init__(self) -> None:
        self._started = time.monotonic()
        self._before = self.done  # the work of an earlier run does not count for the speed of this one
        self._marks = [(self._started, 0, 0.0)]
        """Times, with the units and the work of this run that were done then."""

    def advance(self, count: int = 1, note: str | None = None, work: float | None = None) -> None:
        """Count ``count`` more units as done, and ``work`` (by default as much); ``note`` is shown behind the bar.

        A count of 0 with some work shows that a unit is under way.
        """
        self.done += count
        self._worked += count if work is None else work
        self.note = self.note if note is None else note
        self._mark()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.share)

    def _mark(self) -> None:
        """Marks that stand closer together than 1/256 of the run become one, so that they stay few."""
        now, last = time.monotonic(), self._marks[-1][0]
        if len(self._marks) > 1 and now - last < (now - self._started) / 256:
            self._marks[-1] = (last, self.done - self._before, self._worked)
        else:
            self._marks.append((now, self.done - self._before, self._worked))

    @property
    def share(self) -> float:
        """How much is done, between 0 and 1, for the bar; 0 where nobody knows how much there is."""
        if self.work is not None:
            run = self._worked / self.work if self.work else 1.0
            before = self._before / self.total if self.total else 0.0
            return min(1.0, before + (1.0 - before) * run)
        return min(1.0, self.done / self.total) if self.total else 0.0

    def pace(self) -> tuple[float, float]:
        """Units and work per second in the later half of the run so far; in all of it where the first half has none."""
        now, marks = time.monotonic(), self._marks[:]  # the copy is for another thread, which draws
        begin = (self._started + now) / 2
        _, units, worked = marks[bisect_right(marks, begin, key=lambda mark: mark[0]) - 1]
        if not worked:
            begin, units = self._started, 0
        seconds = max(1e-9, now - begin)
        return (self.done - self._before - units) / seconds, (self._worked - worked) / seconds

    @property
    def left(self) -> timedelta | None:
        """The time that the rest will take; None where nothing tells yet."""
        finished, pace = self.done - self._before, self.pace()[1]
        if self.total is None or not pace:
            return None
        if self.work is not None:
            return timedelta(seconds=round(max(0.0, self.work - self._worked) / pace))
        return timedelta(seconds=round((self.total - self.done) * self._worked / finished / pace)) if finished else None

    @property
    def counted(self) -> str:
        return f"{self.done}/{self.total}" if self.total is not None else f"{self.done}"

    def line(self) -> str:
        """The state as a line of text."""
        share = f", {self.share:.0%}" if self.work is not None else ""
        eta = f", eta {self.left}" if self.left is not None else ""
        rate = f"{self.pace()[0]:.3g} {self.unit}/s"
        return f"{self.title}: {self.counted} {self.unit}{share}, {rate}{eta}  {self.note}".rstrip()


class _Live(ProgressColumn):
    """A text that is asked for whenever the bar is drawn."""

    def __init__(self, text: Callable[[], str]) -> None:
        super().__init__()
        self._text = text

    def render(self, task: Task) -> Text:
        return Text(self._text())


@contextmanager
def progress(
    title: str, total: int | None, unit: str, done: int = 0, *, work: float | None = None
) -> Iterator[ProgressBar]:
    """A bar on a terminal; elsewhere (logs, CI) a plain line every half minute, also while no result arrives.

    Args:
        done: units that an earlier run has done.
        work: of this run; see ``ProgressBar``.
    """
    bar = ProgressBar(title, total, unit, done, work)
    if not err.is_terminal:
        over = Event()
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
        _Live(lambda: f"{bar.counted} {unit}"),
        TimeElapsedColumn(),
        _Live(lambda: "" if bar.left is None else f"eta {bar.left}"),
        _Live(lambda: bar.note),
    )
    with Progress(*columns, console=err, transient=True) as drawn:
        bar._bar, bar._task = drawn, drawn.add_task(title, total=None if total is None else 1.0)
        drawn.update(bar._task, completed=bar.share)
        yield bar


def _say_repeatedly(bar: ProgressBar, over: Event) -> None:
    wait = min(FIRST_LINE_S, PLAIN_INTERVAL_S)
    while not over.wait(wait):
        say(bar.line())
        wait = PLAIN_INTERVAL_S
