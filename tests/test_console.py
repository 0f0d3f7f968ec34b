"""Texts of people reach the terminal as they are: brackets are no markup, words between colons no emoji."""

import io
from pathlib import Path

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
