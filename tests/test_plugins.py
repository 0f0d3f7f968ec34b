"""Plug-ins out of a folder of one's own: those of CONTRIBUTING.md as they stand there, and others that are none."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import WriteJsonl

from maskdpo.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = re.findall(r"^    (maskdpo .*\./my_.*)$", PAGE, re.MULTILINE)
SENTENCES = {"right": "no_hallucination", "wrong": "contradictory"}


@pytest.fixture
def folder(tmp_path: Path, tiny_model: str, jsonl: WriteJsonl, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small files of records, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKDPO_CACHE", str(tmp_path / "cache"))
    jsonl("prompts.jsonl", [{"id": "q", "prompt": "Which river?", "reference": "The Seine crosses Paris."}])
    jsonl("responses.jsonl", [{"id": "q-0", "prompt_id": "q", "response": "The Seine; the Danube. Both cross Paris."}])
    sides = {f"{side}_sentences": [{"start": 0, "end": 10, "label": label}] for side, label in
             (("chosen", "no_hallucination"), ("rejected", "contradictory"))}  # fmt: skip
    jsonl("pairs.jsonl", [{"id": "p", "prompt_id": "q", "topic": "q", "prompt": "Which?", "chosen": "One is so.",
                           "rejected": "Two is so.", **sides}])  # fmt: skip
    return tmp_path


def run(line: str, model: str, monkeypatch: pytest.MonkeyPatch) -> int:
    words = [model if word == "smollm2" else word for word in shlex.split(line)]
    monkeypatch.setattr(sys, "argv", words)
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_plug_ins_of_the_page_work(
    folder: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sorted(FILES) == ["my_judge.py", "my_loss.py", "my_method.py", "my_splitter.py"]
    assert {name for name in FILES if any(f"./{name}" in line for line in COMMANDS)} == set(FILES)
    for name, code in FILES.items():
        (folder / name).write_text(code)
    for number, line in enumerate(COMMANDS):
        own_output = re.sub(r"--out \w+(\.jsonl)?", rf"--out out{number}\1", line)
        steps = " --max-steps 1" if line.startswith("maskdpo train") else ""
        assert run(own_output + steps, tiny_model, monkeypatch) == 0, capsys.readouterr().err
    labels = [s["label"] for record in rows(folder / "out0.jsonl") for s in record["sentences"]]
    assert set(labels) <= {"no_hallucination", "unverifiable"}
    assert len(labels) == 2  # the Markdown splitter does not cut at a semicolon
    (record,) = rows(folder / "out1.jsonl")
    assert record["judge"]["splitter"] == "semicolons"
    assert len(record["sentences"]) == 3
    for number, line in enumerate(COMMANDS):
        if line.startswith("maskdpo train"):
            loss = rows(folder / f"out{number}" / "metrics.jsonl")[0]["loss"]
            assert loss == pytest.approx(0.974077 if "my_loss" in line else 0.693147, abs=1e-4)  # -log sigmoid(-0.5)


def test_options_of_a_plug_in_are_part_of_what_decides_the_labels(
    folder: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "own.py").write_text(
        "from pydantic import BaseModel, Field\n"
        "from maskdpo.annotate.judge import Verdict\n"
        "from maskdpo.schemas import JudgeInfo, Label\n"
        "class Options(BaseModel):\n    least: int = Field(5, ge=1)\n"
        "class Length:\n"
        "    info = JudgeInfo(name='length')\n"
        "    def __init__(self, options: Options): self.options = options\n"
        "    def judge(self, tasks):\n"
        "        for task in tasks:\n"
        "            yield task, [Verdict(Label.NO_HALLUCINATION if s.end - s.start >= self.options.least else\n"
        "                                 Label.UNVERIFIABLE) for s in task.spans]\n"
    )
    line = "maskdpo annotate prompts.jsonl responses.jsonl --judge ./own.py:Length --out a.jsonl"
    assert run(f"{line} --judge-option least=20", tiny_model, monkeypatch) == 0
    assert [s["label"] for s in rows(folder / "a.jsonl")[0]["sentences"]] == ["no_hallucination", "unverifiable"]
    capsys.readouterr()
    for options, message in {
        "--judge-option least=21": "judge_options: {'least': 20} -> {'least': 21}",
        "--judge-option least=0": "--judge ./own.py:Length: least: Input should be greater than or equal to 1",
        "--judge-option most=2": "--judge ./own.py:Length: unknown option 'most'; known: least",
        "--votes 3": "--votes goes with --judge llm, not with ./own.py:Length",
    }.items():
        assert run(f"{line} {options}", tiny_model, monkeypatch) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "code", "message"),
    [
        ("--judge ./none.py:x", "", "--judge ./none.py:x: cannot be imported: there is no file /"),
        ("--judge ./own.py:x", "", "--judge ./own.py:x: ./own.py has no 'x'"),
        ("--judge ./own.py:x", "x = (", "--judge ./own.py:x: cannot be imported: '(' was never closed"),
        ("--judge ./own.py:x", "def x(colour): ...", "--judge ./own.py:x: its factory has a parameter 'colour'; known"),
        ("--judge ./own.py:x", "x = 3", "--judge ./own.py:x: int is no judge: it needs 'info' and 'judge'"),
        ("--judge lexical --splitter ./own.py:x", "x = 3", "--splitter ./own.py:x: int is no splitter"),
        ("--judge lexical --judge-option a=1", "", "--judge lexical takes no options of its own: a"),
    ],
)
def test_plug_ins_that_are_none(
    folder: Path,
    tiny_model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    code: str,
    message: str,
) -> None:
    (folder / "own.py").write_text(code)
    assert run(f"maskdpo annotate prompts.jsonl responses.jsonl --out a.jsonl {option}", tiny_model, monkeypatch) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "a.jsonl").exists()


OWN_SPLITTER = """
from maskdpo.schemas import Kind, Span
class x:
    name = "own"
    def split(self, text, language): return %s
"""
OWN_JUDGE = """
from maskdpo.schemas import JudgeInfo
class x:
    info = JudgeInfo(name="own")
    def judge(self, tasks):
        for task in tasks: yield task, ["right"] * len(task.spans)
"""


@pytest.mark.parametrize(
    ("option", "code", "message"),
    [
        (
            "--judge lexical --splitter ./own.py:x",
            OWN_SPLITTER % "[(0, 5)]",
            "the splitter own gave (0, 5) for the answer",
        ),
        (
            "--judge lexical --splitter ./own.py:x",
            OWN_SPLITTER % "[Span(0, 9, Kind.PROSE), Span(8, 12, Kind.PROSE)]",
            "the splitter own gave Span(start=8, end=12",
        ),
        ("--judge lexical --splitter ./own.py:x", OWN_SPLITTER % "[Span(0, 999, Kind.PROSE)]", "within the text"),
        ("--judge lexical --splitter ./own.py:x", OWN_SPLITTER % "[Span(3, 3, Kind.PROSE)]", "not empty"),
        ("--judge ./own.py:x", OWN_JUDGE, "the judge own gave 'right' on the answer 'q-0'; a Verdict is needed"),
    ],
)
def test_what_plug_ins_return_is_looked_at(
    folder: Path,
    tiny_model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    code: str,
    message: str,
) -> None:
    (folder / "own.py").write_text(code)
    assert run(f"maskdpo annotate prompts.jsonl responses.jsonl --out a.jsonl {option}", tiny_model, monkeypatch) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "rows", ["[1, 0], [0, 1]", "row_of(right=-1, no_fact=0, wrong=0, not_judged=0), {}", "{None: 1.0}, {None: 1.0}"]
)
def test_masks_that_are_none(
    folder: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows: str
) -> None:
    (folder / "own.py").write_text(f"from maskdpo.train.data.weights import Method, row_of\nx = Method({rows})\n")
    assert run("maskdpo inspect pairs.jsonl --model smollm2 --method ./own.py:x", tiny_model, monkeypatch) == 2
    assert "--method ./own.py:x: chosen and rejected must be rows" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--loss ./own.py:x", "--method ./own.py:x"])
def test_losses_and_methods_are_what_they_say(
    folder: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    (folder / "own.py").write_text("x = 3")
    assert run(f"maskdpo train pairs.jsonl --model smollm2 --out m {option}", tiny_model, monkeypatch) == 2
    assert f"{option}: is no" in capsys.readouterr().err


def test_what_an_installed_package_offers_is_found_by_name(
    folder: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = folder / "site"
    metadata = site / "own_judges-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own-judges\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[maskdpo.judges]\nyes-no = my_offered_judge:YesNoJudge\n")
    (site / "my_offered_judge.py").write_text(FILES["my_judge.py"])
    monkeypatch.syspath_prepend(str(site))
    assert run("maskdpo plugins", tiny_model, monkeypatch) == 0
    listed = capsys.readouterr().out
    assert re.search(r"yes-no\W+own-judges", listed)
    assert all(
        name in listed for name in ("lexical", "mask-dpo", "fdpo-margin", "best-worst", "markdown", "vllm", "trl")
    )
    line = "maskdpo annotate prompts.jsonl responses.jsonl --judge yes-no --model smollm2 --out a.jsonl"
    assert run(line, tiny_model, monkeypatch) == 0, capsys.readouterr().err
    assert rows(folder / "a.jsonl")[0]["judge"]["name"] == "yes-no"


def test_secrets_among_options_are_written_nowhere(
    folder: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "own.py").write_text(
        "from pydantic import BaseModel\n"
        "from maskdpo.annotate.judges.lexical import LexicalJudge\n"
        "class Options(BaseModel):\n    api_key: str\n"
        "def judge(options: Options):\n    assert options.api_key.startswith('sk-')\n    return LexicalJudge()\n"
    )
    line = "maskdpo annotate prompts.jsonl responses.jsonl --judge ./own.py:judge --out a.jsonl --judge-option api_key="
    assert run(f"{line}sk-SECRET", tiny_model, monkeypatch) == 0
    assert run(f"{line}sk-OTHER", tiny_model, monkeypatch) == 2  # another account may judge otherwise
    said = capsys.readouterr()
    assert "judge_options: " in said.err
    written = "".join(file.read_text() for file in folder.glob("a.jsonl*"))
    assert not any(secret in said.out + said.err + written for secret in ("sk-SECRET", "sk-OTHER"))


def test_what_goes_wrong_inside_a_plug_in_keeps_its_traceback(
    folder: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "own.py").write_text("import os\nos.nope\n")
    with pytest.raises(AttributeError, match="nope"):
        run("maskdpo annotate prompts.jsonl responses.jsonl --judge ./own.py:x --out a.jsonl", tiny_model, monkeypatch)
