"""The whole flow on real answers with human labels (Factcheck-Bench), where the data is there."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command_line import exit_code

from maskdpo.io import read_prompts, read_records, write_records
from maskdpo.schemas import Annotation, Pair, Response

DATA = Path(os.environ.get("MASKDPO_DATA") or Path(__file__).parents[2] / "shared" / "data" / "factcheck_bench")
PROMPTS, RESPONSES, GOLD = (DATA / f"{name}.jsonl" for name in ("prompts", "responses", "gold"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GOLD.is_file(), reason="no Factcheck-Bench here; $MASKDPO_DATA names its folder"),
]


def maskdpo(*arguments: object) -> None:
    """Run a command as a user would; it must succeed."""
    assert exit_code(*arguments) == 0


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The answers to prompts that have a reference (two have none): the lexical judge stops at the others."""
    known = read_prompts(PROMPTS)
    out = tmp_path_factory.mktemp("answers") / "responses.jsonl"
    write_records(out, (r for r in read_records(RESPONSES, Response) if known[r.prompt_id].passages))
    return out


@pytest.fixture(scope="module")
def annotated(answers: Path) -> Path:
    out = answers.with_name("annotations.jsonl")
    maskdpo("annotate", PROMPTS, answers, "--out", out, "--judge", "lexical")
    return out


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Human labels for ChatGPT's answers; the human revisions of them count as right throughout."""
    folder = tmp_path_factory.mktemp("pairs")
    labelled = [record.model_dump(mode="json") for record in read_records(GOLD, Annotation)]
    for response in read_records(RESPONSES, Response):
        if response.id.endswith("-revised"):
            whole = [{"start": 0, "end": len(response.response), "label": "no_hallucination"}]
            labelled.append(response.model_dump(mode="json") | {"sentences": whole})
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    out = folder / "pairs.jsonl"
    maskdpo("build-pairs", PROMPTS, folder / "labelled.jsonl", "--out", out, "--test-size", 0.2)
    return out


def test_the_files_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    for file, kind in ((PROMPTS, "prompt"), (RESPONSES, "response"), (GOLD, "annotation")):
        maskdpo("validate", file, "--prompts", PROMPTS)
        assert f"valid {kind} records" in capsys.readouterr().out


def test_every_answer_is_annotated_in_order_and_sentences_cover_the_text(annotated: Path, answers: Path) -> None:
    asked = list(read_records(answers, Response))
    found = list(read_records(annotated, Annotation))
    assert len(found) > 110
    assert [record.id for record in found] == [answer.id for answer in asked]
    for record, answer in zip(found, asked, strict=True):
        assert record.response == answer.response
        inside = sum(len(record.response[s.start : s.end].split()) for s in record.sentences)
        assert inside >= 0.9 * len(record.response.split())


def test_evaluate_against_the_human_labels(annotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maskdpo("evaluate", annotated, "--prompts", PROMPTS, "--gold", GOLD, "--json", tmp_path / "f.json")
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("Cohen's kappa", "Krippendorff's alpha", 'always "right"', "by class"))
    assert "four labels" not in shown  # these human labels do not say in which way a sentence is wrong
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["summary"]["figures"]["answers cut off"]["value"] is None
    agreed = found["agreement"]
    three = agreed["three_classes"]
    assert (agreed["gold_answers"], agreed["not_annotated"]) == (79, 2)
    assert (three["gold_sentences"], three["judged"]) == (243, 236)  # 7 of them in answers without a reference
    assert three["baseline"]["accuracy"] == pytest.approx(120 / 236)
    assert sum(n for row in three["confusion"].values() for n in row.values()) == 243


def test_the_human_labels_agree_with_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copy(GOLD, tmp_path)  # the very same file is refused as its own gold
    maskdpo("evaluate", copy, "--gold", GOLD)
    lines = capsys.readouterr().out.splitlines()
    for name in ("accuracy", "Cohen's kappa", "Krippendorff's alpha", "macro F1"):
        assert "1.00 [0." in next(line for line in lines if name in line)  # a topic like none of them may differ


def test_build_pairs_prefers_the_revised_answer_and_splits_by_topic(pairs: Path) -> None:
    train = list(read_records(pairs, Pair))
    test = list(read_records(pairs.with_name("pairs.test.jsonl"), Pair))
    assert len(train) > 15
    assert len(test) > 2
    assert {pair.topic for pair in train}.isdisjoint(pair.topic for pair in test)
    assert all(pair.id == f"{pair.prompt_id}-revised|{pair.prompt_id}-chatgpt" for pair in [*train, *test])
    asked = read_prompts(PROMPTS)
    for pair in train:
        assert not isinstance(pair.prompt, str)
        assert pair.prompt[0].content == asked[pair.prompt_id].prompt


def test_report_of_answers_and_of_pairs(annotated: Path, pairs: Path, tmp_path: Path) -> None:
    maskdpo("report", annotated, "--out", tmp_path / "a.html", "--prompts", PROMPTS, "--gold", GOLD)
    other = shutil.copy(annotated, tmp_path / "after.jsonl")
    maskdpo("report", annotated, "--out", tmp_path / "c.html", "--compare", other)
    maskdpo("report", pairs, "--out", tmp_path / "p.html", "--prompts", PROMPTS)
    for name in "acp":
        assert "William O. Douglas" in (tmp_path / f"{name}.html").read_text()


def smollm2() -> str:
    """The real small model, or a skip where its packages are missing."""
    from maskdpo.errors import UserError
    from maskdpo.models import resolve_model

    try:
        resolve_model("smollm2")
    except UserError as error:
        pytest.skip(str(error))
    return "smollm2"


def test_inspect_shows_masks_that_lie_on_the_labelled_text(pairs: Path, tmp_path: Path) -> None:
    from maskdpo.models import load_tokenizer

    model = smollm2()
    maskdpo("inspect", pairs, "--model", model, "--json", tmp_path / "w.jsonl", "--show", 1)
    rows = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    by_id = {pair.id: pair for pair in read_records(pairs, Pair)}
    assert len(rows) == 2 * len(by_id)
    tokenizer = load_tokenizer(model)
    for row in rows:
        pair = by_id[row["pair"]]
        assert len(row["input_ids"]) == len(row["weights"])
        on = tokenizer.decode([t for t, weight in zip(row["input_ids"], row["weights"], strict=True) if weight > 0])
        trained = "no_hallucination" if row["side"] == "chosen" else "hallucination"
        text = pair.response(row["side"])
        for sentence in pair.sentences(row["side"]):
            if sentence.label == trained:
                assert text[sentence.start : sentence.end].strip() in on


def test_one_step_of_training_starts_at_log_2_and_is_not_done_twice(pairs: Path, tmp_path: Path) -> None:
    model = smollm2()
    shortest = sorted(read_records(pairs, Pair), key=lambda p: len(p.response("chosen")) + len(p.response("rejected")))
    few = tmp_path / "few.jsonl"
    few.write_text("".join(pair.model_dump_json() + "\n" for pair in shortest[:2]))
    out = tmp_path / "model"
    arguments = ("train", few, "--model", model, "--out", out, "--max-steps", 1, "--batch-size", 2, "--no-cache")
    maskdpo(*arguments)
    (step,) = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert step["loss"] == pytest.approx(0.6931, abs=0.002)
    assert step["grad_norm"] > 0
    assert (out / "config.json").is_file()
    before = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    maskdpo(*arguments)  # complete: nothing is done again
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == before
    shutil.rmtree(out)
