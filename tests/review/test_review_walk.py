"""The whole way on sentences with human labels, where the data is there: judge, two reviewers, one who settles, gold,
calibration."""

import json
import os
import random
import secrets
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from command_line import exit_code
from review_world import Serving, decisions, serving

from maskdpo.io import read_records, write_records
from maskdpo.schemas import Annotation, Label, Prompt, Response, group_of

pytest.importorskip("starlette", reason="needs starlette and uvicorn: pip install 'maskdpo[review]'")

DATA = Path(os.environ.get("MASKDPO_DATA") or Path(__file__).parents[3] / "shared" / "data" / "factcheck_bench")
ROWS = [DATA.parent / "judge" / f"{name}.jsonl" for name in ("expertqa", "lfqa_verification", "summedits")]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ROWS[0].is_file(), reason="no labelled sentences here; $MASKDPO_DATA names a folder beside"),
]

JUDGE = '''
"""A judge that counts which share of the words of a sentence is in the reference."""
from maskdpo.annotate.judge import Verdict
from maskdpo.schemas import JudgeInfo, Label

class Words:
    info = JudgeInfo(name="words")

    def judge(self, tasks):
        for task in tasks:
            known = set(" ".join(task.prompt.passages).lower().split())
            yield task, [self.verdict(set(task.sentence(i).lower().split()), known) for i in range(len(task.spans))]

    def verdict(self, words, known):
        right = len(words & known) / max(1, len(words))
        scores = {Label.NO_HALLUCINATION: right, Label.UNVERIFIABLE: 1 - right}
        label = max(scores, key=scores.get)
        return Verdict(label, confidence=scores[label], scores=scores)
'''


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Label]]:
    """A folder with prompts and answers of one sentence or more, and the label of every answer."""
    folder = tmp_path_factory.mktemp("walk")
    rows = [json.loads(line) for file in ROWS for line in islice(file.open(encoding="utf-8"), 20)]
    prompts = [Prompt(id=row["id"], prompt="?", reference=row["reference"], topic=row["doc_id"]) for row in rows]
    write_records(folder / "prompts.jsonl", prompts)
    answers = [Response(id=row["id"], prompt_id=row["id"], response=row["sentence"]) for row in rows]
    write_records(folder / "responses.jsonl", answers)
    (folder / "words.py").write_text(JUDGE)
    return folder, {row["id"]: Label(row["label"]) for row in rows}


def decide(server: Serving, truth: dict[str, Label], folder: Path, errors: float, seed: int) -> None:
    """Decide all open sentences as the human labels say, but for a share of errors."""
    rng = random.Random(seed)
    by_text = {one.response: one.id for one in read_records(folder / "responses.jsonl", Response)}
    told = server.ask("api/start")[1]
    acts = []
    for item, (answer, begin, end) in enumerate(told["items"]):
        label = truth[by_text[server.ask(f"api/answers/{answer}")[1]["t"]]]
        if rng.random() < errors:
            label = Label.CONTRADICTORY if label is Label.NO_HALLUCINATION else Label.NO_HALLUCINATION
        place = {"item": item, "start": begin, "end": end, "seconds": 6.0}
        acts.append({"id": secrets.token_hex(16), "act": "label", "label": label} | place)
    status, reply = server.ask("api/acts", {"run": told["run"], "acts": acts, "since": 0})
    assert (status, reply["refused"]) == (200, {})
    assert server.end() == 0


def test_from_a_judge_to_a_calibrated_one(truth: tuple[Path, dict[str, Label]]) -> None:
    folder, labels = truth
    files = {
        name: folder / f"{name}.jsonl" for name in ("prompts", "responses", "annotations", "ada", "ben", "eva", "gold")
    }
    prompts = ["--prompts", files["prompts"]]
    judge = ["--judge", f"{folder / 'words.py'}:Words"]
    assert exit_code("annotate", files["prompts"], files["responses"], *judge, "--out", files["annotations"]) == 0
    inputs = [files["annotations"], *prompts]
    for seed, (name, errors) in enumerate({"ada": 0.0, "ben": 0.15}.items()):
        with serving(*inputs, "--out", files[name], "--reviewer", name, "--limit", 60, "--blind", 0.5) as server:
            decide(server, labels, folder, errors, seed)
    both = [files["ada"], files["ben"]]
    found = {name: decisions(files[name]) for name in ("ada", "ben")}
    assert [len(made) for made in found.values()] == [60, 60]
    population = sum(len(one.sentences) for one in read_records(files["annotations"], Annotation))
    assert {one.inclusion for made in found.values() for one in made} == {60 / population}
    assert Counter(one.shown for one in found["ada"])[True] == 30

    assert exit_code("agree", *both, "--json", folder / "agree.json") == 0
    agreed = json.loads((folder / "agree.json").read_text())
    differing = sum(one.label != other.label for one, other in zip(*found.values(), strict=True))
    assert 0 < differing < 20
    assert agreed["reviewers"] == {"ada": 60, "ben": 60}

    against = [word for file in both for word in ("--against", file)]
    command = [*inputs, "--out", files["eva"], "--reviewer", "eva", "--queue", "disagreement", *against]
    with serving(*command) as server:
        decide(server, labels, folder, 0.0, 0)
    assert len(decisions(files["eva"])) == differing

    assert exit_code("gold", *both, files["eva"], "--out", files["gold"]) == 0
    gold = list(read_records(files["gold"], Annotation))
    assert sum(len(one.sentences) for one in gold) == 60, "nothing is a tie any more"
    assert all(group_of(s.label) == group_of(labels[one.id]) for one in gold for s in one.sentences)
    assert {s.inclusion for one in gold for s in one.sentences} == {60 / population}

    calibration = folder / "calibration.json"
    assert exit_code("calibrate", *inputs, "--gold", files["gold"], "--out", calibration) == 0
    assert json.loads(calibration.read_text())["gold_sentences"] == 60
    again = folder / "relabelled.jsonl"
    assert exit_code("relabel", files["annotations"], "--calibration", calibration, "--out", again) == 0
    assert exit_code("evaluate", again, *prompts, "--gold", files["gold"], "--json", folder / "figures.json") == 0
    powered = json.loads((folder / "figures.json").read_text())["prediction_powered"]
    assert powered["gold_sentences"] == 60
