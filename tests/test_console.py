"""Texts of people reach the terminal as they are (brackets are no markup, words between colons no emoji), and the time
left is true."""

import heapq
import io
import random
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import exit_code
from rich.console import Console

from maskdpo import console

TEXTS = ["[bold]so[/bold]", "[/x]", "a[1] [red]", ":smile: [link=x]", "\\\\[b]"]


@pytest.mark.parametrize("text", TEXTS)
def test_brackets_are_shown_everywhere(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.table(f"title {text}", (f"name {text}", f"figure {text}"), [(f"cell {text}", 1)], [f"note {text}"])
    for line in (console.say, console.show, console.warn, console.fail):
        line(f"said {text}")
    shown = capsys.readouterr()
    for part in ("title", "name", "figure", "cell", "note"):
        assert f"{part} {text}" in shown.out
    assert shown.err.count(f"said {text}") == 4


@pytest.mark.parametrize("text", TEXTS)
def test_brackets_are_shown_in_a_bar(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=file, force_terminal=True, width=300, emoji=False))
    with console.progress(f"doing {text}", 2, f"of {text}") as bar:
        bar.advance(1, f"with {text}")
    for part in ("doing", "of", "with"):
        assert f"{part} {text}" in file.getvalue()


def test_a_long_title_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Paths are searched for in logs, and copied out of them."""
    title = "annotate -> /" + "/".join(["folder"] * 40)
    console.table(title, ("", "count"), [("x", 1)])
    assert title in capsys.readouterr().out.splitlines()


def test_a_file_whose_name_has_brackets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "[bold]p[" / "x].jsonl"
    file.parent.mkdir()
    file.write_text('{"id": "q", "prompt": "?"}\n{"id": "q", "prompt": "?"}\n')
    assert exit_code("validate", file) == 2
    shown = capsys.readouterr()
    assert f"validate {file}" in shown.out
    assert f"error: {file}:2: id: duplicate id" in shown.err


def simulated(
    monkeypatch: pytest.MonkeyPatch, sizes: list[float], *, start: float, at_once: int = 1, parts: int = 1, known: bool
) -> list[tuple[float, float, float]]:
    """A run of pieces of work that take as many seconds as their sizes say, after a start.

    Args:
        at_once: how many are under way at a time.
        parts: each of a piece is told when it is done.
        known: whether the bar knows the work before.

    Returns:
        After a third of the run, up to nine tenths of it: the time, what the bar says is left, and what truly is.
    """
    clock = [0.0]
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    bar = console.ProgressBar("run", len(sizes), "pieces", work=sum(sizes) if known else None)
    waiting, under_way, told = iter(sizes), list[tuple[float, int, float]](), list[tuple[float, float]]()

    def begin(now: float) -> None:
        if size := next(waiting, None):
            for part in range(1, parts + 1):
                heapq.heappush(under_way, (now + size * part / parts, part, size))

    for _ in range(at_once):
        begin(start)
    while under_way:
        clock[0], part, size = heapq.heappop(under_way)
        bar.advance(int(part == parts), work=size / parts if known else None)
        assert bar.left is not None or not known
        told += [(clock[0], bar.left.total_seconds())] if bar.left is not None else []
        if part == parts:
            begin(clock[0])
    end = clock[0]
    assert told[-1] == (end, 0)
    return [(now, left, end - now) for now, left in told if end / 3 <= now <= 0.9 * end]


@pytest.mark.parametrize("order", ["as they come", "short ones first", "long ones first"])
def test_the_time_left_is_true_for_unequal_pieces_after_a_slow_start(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = random.Random(1)
    sizes = [10 * draws.lognormvariate(1, 1) for _ in range(200)]
    if order != "as they come":
        sizes.sort(reverse=order == "long ones first")
    assert max(sizes) > 50 * min(sizes)
    for _, said, left in simulated(monkeypatch, sizes, start=sum(sizes) / 8, known=True):
        assert said == pytest.approx(left, rel=0.2)


@pytest.mark.parametrize(("parts", "known"), [(1, True), (4, True), (1, False)])
def test_the_end_is_true_where_several_are_under_way(parts: int, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(10):
        draws = random.Random(seed)
        sizes = [10 * draws.lognormvariate(1, 0.6) for _ in range(300)]
        start = sum(sizes) / 8 / 8
        for now, said, left in simulated(monkeypatch, sizes, start=start, at_once=8, parts=parts, known=known):
            assert now + said == pytest.approx(now + left, rel=0.2)


def test_the_bar_moves_before_the_first_piece_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    bar = console.ProgressBar("judge", 10, "answers", done=2, work=80.0)
    assert bar.line() == "judge: 2/10 answers, 20%, 0 answers/s"
    clock[0] = 60.0
    bar.advance(0, work=8.0)
    assert bar.line() == "judge: 2/10 answers, 28%, 0 answers/s, eta 0:09:00"


def test_marks_stay_few(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    bar = console.ProgressBar("read", None, "records")
    for i in range(100_000):
        clock[0] = (i + 1) / 1000
        bar.advance()
    assert len(bar._marks) < 3000
    assert bar.pace()[0] == pytest.approx(1000, rel=0.01)


def test_the_first_line_does_not_wait_for_half_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.FIRST_LINE_S < 5 < console.PLAIN_INTERVAL_S
    monkeypatch.setattr(console, "FIRST_LINE_S", 0.05)
    with console.progress("load", 3, "files"):
        time.sleep(0.3)
    assert capsys.readouterr().err == "load: 0/3 files, 0 files/s\n"


def test_a_bar_on_a_terminal_has_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=file, force_terminal=True, width=300, emoji=False))
    with console.progress("judge", 4, "answers", work=100.0) as bar:
        time.sleep(0.05)
        bar.advance(1, "one done", work=75.0)
    assert "1/4 answers" in file.getvalue()
    assert "eta 0:00:00 one done" in file.getvalue()


def test_one_is_counted_without_the_plural() -> None:
    assert console.counted(1, "pair") == "1 pair"
    assert [console.counted(n, "prompt has", "prompts have") for n in (0, 1, 1234)] == [
        "0 prompts have", "1 prompt has", "1,234 prompts have",
    ]  # fmt: skip
