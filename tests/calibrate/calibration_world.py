"""Answers whose sentences say how likely they are right, gold labels drawn with these probabilities, and a judge whose
scores are distorted by a known temperature and offset."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import exit_code

JUDGE = """
import math, re
from maskdpo.annotate.judge import Verdict
from maskdpo.schemas import JudgeInfo, Label, Status

TEMPERATURE, OFFSET = 0.5, 3.0

class Distorted:
    def __init__(self):
        self.info = JudgeInfo(name="distorted", model=MODEL)

    def judge(self, tasks):
        for task in tasks:
            yield task, [self.verdict(task.sentence(i)) for i in range(len(task.spans))]

    def verdict(self, sentence):
        if "fails" in sentence:
            return Verdict(None, Status.API_ERROR, reason="as asked for")
        if "silent" in sentence:
            return Verdict(Label.NO_HALLUCINATION)
        true = int(re.search(r"by (\\d+)", sentence)[1]) / 1000
        z = math.log(true / (1 - true)) * TEMPERATURE + OFFSET
        right = 1 / (1 + math.exp(-z))
        scores = {Label.NO_HALLUCINATION: right, Label.HALLUCINATION: 1 - right}
        return Verdict(max(scores, key=scores.get), scores=scores)
"""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@dataclass
class World:
    """A folder with all files, and the command line in it."""

    folder: Path
    call: Callable[..., Ended]

    def path(self, name: str) -> Path:
        return self.folder / name

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path(name).read_text().splitlines()]

    def write(self, name: str, rows: list[dict[str, Any]]) -> Path:
        self.path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return self.path(name)

    def run(self, *words: object) -> Ended:
        """The command must succeed."""
        ended = self.call(*words)
        assert ended.code == 0, ended.err
        return ended

    def fails(self, *words: object) -> str:
        """The command must fail with one line, and leave no file behind. The line."""
        before = {file: file.read_bytes() for file in self.folder.iterdir() if file.is_file()}
        ended = self.call(*words)
        assert ended.code == 2
        assert {file: file.read_bytes() for file in self.folder.iterdir() if file.is_file()} == before
        errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "Traceback" not in ended.err
        return errors[0]


def claims(topics: int, seed: int = 0) -> tuple[list[dict[str, Any]], ...]:
    """Prompts, responses and gold: two prompts per topic, three sentences per answer below a heading."""
    rng = random.Random(seed)
    prompts, responses, gold = [], [], []
    for i in range(2 * topics):
        text, sentences = "# Claims\n\n", []
        for k in range(3):
            true = 1 / (1 + math.exp(-rng.gauss(0, 2)))
            per_mille = min(999, max(1, round(1000 * true)))
            sentence = f"Claim {k} of answer {i} is likely by {per_mille} parts. "
            label = "no_hallucination" if rng.random() < per_mille / 1000 else "hallucination"
            sentences.append({"start": len(text), "end": len(text) + len(sentence) - 1, "label": label})
            text += sentence
        prompts.append({"id": f"q{i}", "prompt": "What?", "reference": "It is.", "topic": f"t{i // 2}"})
        responses.append({"id": f"r{i}", "prompt_id": f"q{i}", "response": text.strip()})
        gold.append(responses[-1] | {"sentences": sentences})
    return prompts, responses, gold


def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> World:
    def call(*words: object) -> Ended:
        capsys.readouterr()
        code = exit_code(*words)
        return Ended(code, *capsys.readouterr())

    monkeypatch.chdir(tmp_path)
    found = World(tmp_path, call)
    for name, rows in zip(("prompts", "responses", "gold"), claims(60), strict=True):
        found.write(f"{name}.jsonl", rows)
    for model in ("a", "b"):
        found.path(f"judge_{model}.py").write_text(JUDGE.replace("MODEL", repr(model)))
    return found


ANNOTATE = ("annotate", "prompts.jsonl", "responses.jsonl", "--judge", "./judge_a.py:Distorted", "--out")
CALIBRATE = ("calibrate", "raw.jsonl", "--gold", "gold.jsonl", "--prompts", "prompts.jsonl", "--out", "c.json")
