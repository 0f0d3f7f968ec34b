"""``maskdpo calibrate``: what distorts a judge is undone, and the figures are those of topics not fitted to."""

import json
import random
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from calibration_world import ANNOTATE, CALIBRATE, World, make_world

from maskdpo import UserError, annotate_responses, calibrate_annotations, relabel_annotations
from maskdpo.calibrate.calibrate import cross_validated, doubts, held
from maskdpo.calibrate.cases import Case
from maskdpo.io import read_records
from maskdpo.schemas import Annotation, Label
from maskdpo.verdicts.aim import Aim
from maskdpo.verdicts.decision import read_calibration
from maskdpo.verdicts.fitting import Example, fit

RIGHT, CONTRA, UNVER, WRONG, NO_FACT = Label


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> World:
    return make_world(tmp_path, monkeypatch, capsys)


@pytest.fixture
def raw(world: World) -> World:
    world.run(*ANNOTATE, "raw.jsonl")
    return world


def test_a_distorted_judge_is_calibrated_back(raw: World) -> None:
    ended = raw.run(*CALIBRATE, "--plot", "p.svg")
    found = read_calibration(raw.path("c.json"))
    assert found.before is not None
    assert found.held_out is not None
    before, after = found.before.figures, found.held_out.figures
    assert found.parameters.temperature == pytest.approx(0.5, rel=0.3)
    shift = found.parameters.offsets[WRONG] - found.parameters.offsets[RIGHT]
    assert shift == pytest.approx(3 / 0.5, abs=1.5)
    value = {name: (before[name].value or 0.0, after[name].value or 0.0) for name in before}
    assert value["auroc"][0] > 0.8
    assert value["auroc"] == pytest.approx((value["auroc"][0],) * 2, abs=0.02)
    assert value["ece"][0] > 0.25 > 0.1 > value["ece"][1]
    assert value["balanced_accuracy_right_wrong"][0] < 0.65 < 0.72 < value["balanced_accuracy_right_wrong"][1]
    assert value["coverage"] == (1, 1)
    assert (found.gold_sentences, found.gold_topics) == (360, 60)
    for shown in ("after, on held-out topics", "AUROC", "Cohen's kappa", "reliability", "temperature", found.hash):
        assert shown in ended.out
    assert "warning" not in ended.err
    assert raw.path("p.svg").read_text().startswith("<?xml")
    run = json.loads(raw.path("c.json.meta.json").read_text())
    assert (run["command"], run["status"]) == ("calibrate", "complete")
    assert run["inputs"]["gold"] == found.gold_sha256


def test_the_same_seed_gives_the_same_file(raw: World) -> None:
    raw.run(*CALIBRATE)
    one = raw.path("c.json").read_bytes()
    raw.run(*CALIBRATE)
    assert raw.path("c.json").read_bytes() == one
    raw.run(*CALIBRATE, "--seed", 1)
    assert raw.path("c.json").read_bytes() != one
    assert (
        read_calibration(raw.path("c.json")).hash
        == json.loads(raw.path("c.json.meta.json").read_text())["counts"]["hash"]
    )


@pytest.mark.slow
def test_labels_at_random_are_at_chance_on_held_out_topics_whatever_they_seem_in_sample() -> None:
    """A judge that knows nothing, on 120 sentences of 60 topics: thresholds that seem to make it precise do not."""
    seeming, honest, balanced = [], [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        given = rng.random(120).tolist()
        gold = [RIGHT if value < 0.5 else WRONG for value in rng.random(120)]
        cases = [
            Case(f"t{i // 2}", g, None, {RIGHT: p, WRONG: 1 - p})
            for i, (g, p) in enumerate(zip(gold, given, strict=True))
        ]
        fitted = fit([Example(c.scores or {}, c.gold) for c in cases], Aim("precision", 0.65))
        seeming += [c.gold is label for c in cases if (label := fitted.choose(c.scores or {})[0])]
        labels = [one.label for one in cross_validated(cases, Aim("precision", 0.65), abstain=0.0, votes=1, seed=0)]
        honest += [c.gold is label for c, label in zip(cases, labels, strict=True) if label]
        labels = [one.label for one in cross_validated(cases, Aim(), abstain=0.0, votes=1, seed=0)]
        balanced += [c.gold is label for c, label in zip(cases, labels, strict=True)]
    assert mean(seeming) >= 0.65
    assert mean(honest) == pytest.approx(0.5, abs=0.06)
    assert mean(balanced) == pytest.approx(0.5, abs=0.05)


def test_no_topic_is_fitted_to_and_tested_on() -> None:
    """Scores that are those of the topic alone: whoever sees the topic knows its gold label, nobody else does."""
    rng = np.random.default_rng(0)
    cases = []
    for topic in range(40):
        gold = RIGHT if rng.random() < 0.5 else WRONG
        p = float(rng.random())
        cases += [Case(str(topic), gold, None, {RIGHT: p, WRONG: 1 - p})] * 10
    found = held(cases, cross_validated(cases, Aim(), abstain=0.0, votes=1, seed=0)).figures
    assert found["balanced_accuracy_right_wrong"].value == pytest.approx(0.5, abs=0.15)
    low, high = found["balanced_accuracy_right_wrong"].low, found["balanced_accuracy_right_wrong"].high
    assert low is not None and high is not None and high - low > 0.2  # 40 topics, not 400 sentences


def test_prompts_without_a_topic_that_share_a_reference_are_one_topic(raw: World) -> None:
    rows = [row | {"reference": f"It is {row['topic']}.", "topic": None} for row in raw.rows("prompts.jsonl")]
    raw.write("prompts.jsonl", rows)
    raw.run(*CALIBRATE)
    assert read_calibration(raw.path("c.json")).gold_topics == 60  # of 120 prompts


def test_precision_and_abstention_leave_sentences_unsure(raw: World) -> None:
    raw.run(*CALIBRATE, "--aim", "precision=0.9")
    found = read_calibration(raw.path("c.json"))
    assert found.held_out is not None
    figures = found.held_out.figures
    assert (figures["coverage"].value or 1.0) < 0.9
    assert (figures["precision_right"].value or 0.0) > 0.83
    assert (figures["precision_wrong"].value or 0.0) > 0.83
    raw.run(*CALIBRATE, "--abstain", "0.3")
    found = read_calibration(raw.path("c.json"))
    assert found.held_out is not None
    assert 0.5 < (found.held_out.figures["coverage"].value or 0.0) < 0.9


def test_a_class_that_no_threshold_makes_precise_enough_is_said(raw: World) -> None:
    gold = raw.rows("gold.jsonl")
    for row in gold[::2]:
        row["sentences"][0]["label"] = random.Random(row["id"]).choice(["hallucination", "no_hallucination"])
    raw.write("gold.jsonl", gold)
    ended = raw.run(*CALIBRATE, "--aim", "precision=0.999")
    thresholds = read_calibration(raw.path("c.json")).parameters.thresholds or {}
    never = [name for name, threshold in thresholds.items() if threshold is None]
    assert never
    assert "never given" in ended.out
    assert all(f"no sentence will get the label {name}" in ended.err for name in never)


def test_little_gold_is_said_with_how_much_would_do(raw: World) -> None:
    raw.write("gold.jsonl", raw.rows("gold.jsonl")[:12])
    ended = raw.run(*CALIBRATE)
    assert "little gold: 36 sentences with scores" in ended.err
    assert "of 6 topics" in ended.err
    assert "gold sentences, of proportionally more topics, would make that +-0.05" in " ".join(ended.err.split())


def test_sentences_that_failed_lower_the_coverage_and_headings_count(raw: World) -> None:
    rows = raw.rows("raw.jsonl")
    for row in rows[:12]:
        row["sentences"][1] = {k: row["sentences"][1][k] for k in ("start", "end")} | {"status": "api_error"}
    raw.write("raw.jsonl", rows)
    gold = raw.rows("gold.jsonl")
    gold[20]["sentences"].insert(0, {"start": 0, "end": 8, "label": "no_fact"})
    raw.write("gold.jsonl", gold)
    raw.run(*CALIBRATE)
    found = read_calibration(raw.path("c.json"))
    assert found.held_out is not None
    assert found.gold_sentences == 348
    assert found.held_out.figures["coverage"].value == pytest.approx(349 / 361)


# --- errors -----------------------------------------------------------------------------------------


def test_gold_that_is_no_gold(raw: World) -> None:
    words = ("calibrate", "raw.jsonl", "--out", "c.json", "--gold")
    assert "is the file whose labels it is to check" in raw.fails(*words, "raw.jsonl")
    raw.write("copy.jsonl", raw.rows("raw.jsonl"))
    assert "has its labels from the very judge of raw.jsonl" in raw.fails(*words, "copy.jsonl")
    assert "no such file" in raw.fails(*words, "none.jsonl")
    raw.write("other.jsonl", [row | {"id": row["id"] + "x"} for row in raw.rows("gold.jsonl")])
    assert "share no sentence: do the ids and the texts of the answers match?" in raw.fails(*words, "other.jsonl")
    raw.write("more.jsonl", [*raw.rows("gold.jsonl"), *raw.rows("other.jsonl")])
    assert "360 of 720 gold sentences are not used: raw.jsonl has no answer" in raw.run(*words, "more.jsonl").err


def test_gold_of_a_stronger_judge_is_taken_with_a_warning(raw: World) -> None:
    raw.write("gold.jsonl", [row | {"judge": {"name": "strong"}} for row in raw.rows("gold.jsonl")])
    assert "labels of the judge strong are taken as gold" in raw.run(*CALIBRATE).err


def test_annotations_that_cannot_be_calibrated(raw: World) -> None:
    rows = raw.rows("raw.jsonl")
    raw.write("raw.jsonl", [{k: v for k, v in row.items() if k != "judge"} for row in rows])
    assert "has no judge, as in a gold file" in raw.fails(*CALIBRATE)
    raw.write("raw.jsonl", [*rows[:-1], rows[-1] | {"judge": {"name": "distorted", "model": "b"}}])
    assert "from another judge than the answers before it" in raw.fails(*CALIBRATE)
    without = [
        row | {"sentences": [{k: v for k, v in s.items() if k != "scores"} for s in row["sentences"]]} for row in rows
    ]
    raw.write("raw.jsonl", without)
    assert "no sentence that gold knows has scores" in raw.fails(*CALIBRATE)


def test_gold_that_says_too_little(raw: World) -> None:
    gold = raw.rows("gold.jsonl")
    right = [row | {"sentences": [s for s in row["sentences"] if s["label"] == "no_hallucination"]} for row in gold]
    raw.write("gold.jsonl", right)
    assert "no sentence with scores is wrong in gold" in raw.fails(*CALIBRATE)
    raw.write("gold.jsonl", gold[:2])
    assert "all gold sentences with scores are of one topic" in raw.fails(*CALIBRATE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--aim", "best"), "'best' is neither balanced nor precision=P"),
        (("--aim", "precision=0.3"), "'precision=0.3' is neither balanced nor precision=P"),
        (("--abstain", "1"), "less than 1"),
        (("--plot", "p.txt"), "p.txt: the name must end in .png, .svg, .pdf"),
        (("--out", "gold.jsonl"), "is an input of this command"),
    ],
)
def test_bad_options(raw: World, words: tuple[str, ...], message: str) -> None:
    kept = CALIBRATE[: CALIBRATE.index("--out")] if "--out" in words else CALIBRATE
    assert message in raw.fails(*kept, *words)


def test_a_copy_of_the_judges_labels_is_no_gold(raw: World) -> None:
    raw.run(*CALIBRATE)
    calibration = read_calibration(raw.path("c.json"))
    right, wrong = Label.NO_HALLUCINATION, Label.HALLUCINATION
    copied = [Case(f"t{i}", label, label, {right: 0.6, wrong: 0.4}) for i, label in enumerate([right, wrong] * 20)]
    assert any("own label for every sentence" in doubt for doubt in doubts(calibration, copied))
    corrected = [copied[0]._replace(gold=wrong), *copied[1:]]
    assert not any("own label for every sentence" in doubt for doubt in doubts(calibration, corrected))


# --- Python -----------------------------------------------------------------------------------------


def test_from_python_in_memory_and_with_files(raw: World) -> None:
    annotations = list(read_records(raw.path("raw.jsonl"), Annotation))
    gold = list(read_records(raw.path("gold.jsonl"), Annotation))
    in_memory = calibrate_annotations(annotations, gold=gold)
    of_files = calibrate_annotations("raw.jsonl", gold="gold.jsonl", out="d.json")
    assert in_memory.hash == of_files.hash == read_calibration(raw.path("d.json")).hash
    stats = relabel_annotations("raw.jsonl", out="new.jsonl", calibration="d.json")
    streamed = list(relabel_annotations(annotations, calibration="d.json"))
    assert streamed == list(read_records(raw.path("new.jsonl"), Annotation))
    assert streamed == list(relabel_annotations(annotations, calibration=in_memory))
    assert stats.changed > 50
    judge = "./judge_a.py:Distorted"
    judged = annotate_responses("prompts.jsonl", "responses.jsonl", judge=judge, calibration="d.json")
    assert sorted(judged, key=lambda r: r.id) == sorted(streamed, key=lambda r: r.id)
    with pytest.raises(UserError, match="judge: is missing"):
        list(relabel_annotations(gold, calibration="d.json"))


# --- hardly any gold --------------------------------------------------------------------------------


def little_gold(world: World, right: int, wrong: int, topics: int) -> None:
    """One labelled sentence for each, of so many topics."""
    labels = ["no_hallucination"] * right + ["hallucination"] * wrong
    gold = []
    for i, label in enumerate(labels):
        row = world.rows("gold.jsonl")[2 * (i % topics) + i // topics % 2]
        sentence = row["sentences"][i // (2 * topics)] | {"label": label}
        gold.append(row | {"sentences": [sentence]})
    by_id: dict[str, dict[str, Any]] = {}
    for row in gold:
        by_id.setdefault(row["id"], row | {"sentences": []})["sentences"] += row["sentences"]
    world.write("gold.jsonl", list(by_id.values()))


@pytest.mark.parametrize(
    ("right", "wrong", "topics"), [(9, 9, 18), (5, 5, 10), (3, 3, 4), (2, 1, 3), (1, 1, 2), (8, 2, 10), (2, 8, 2)]
)
@pytest.mark.parametrize("aim", ["balanced", "precision=0.9"])
def test_hardly_any_gold_is_calibrated_with_a_warning(
    raw: World, right: int, wrong: int, topics: int, aim: str
) -> None:
    little_gold(raw, right, wrong, topics)
    ended = raw.run(*CALIBRATE, "--aim", aim)
    assert f"little gold: {right + wrong} sentences with scores ({right} right, {wrong} wrong) of {topics}" in ended.err
    assert json.loads(raw.path("c.json.meta.json").read_text())["status"] == "complete"


def test_a_part_that_nothing_can_be_fitted_to_keeps_the_scores_as_they_are() -> None:
    """The judge has no score for no_fact, and the other topic has no other gold label."""
    scores = {RIGHT: 0.7, WRONG: 0.3}
    cases = [Case("a", RIGHT, RIGHT, scores), Case("a", WRONG, RIGHT, scores)]
    cases += [Case("b", NO_FACT, RIGHT, scores), Case("b", NO_FACT, RIGHT, scores)]
    given = cross_validated(cases, Aim(), abstain=0.0, votes=1, seed=0)
    assert [one.label for one in given[:2]] == [RIGHT, RIGHT]
    assert given[0].right == pytest.approx(0.7)


def test_a_fit_that_fails_leaves_the_earlier_file_and_its_record(raw: World, monkeypatch: pytest.MonkeyPatch) -> None:
    raw.run(*CALIBRATE)

    def fails(*_: object, **__: object) -> None:
        raise UserError("nothing to fit")

    monkeypatch.setattr("maskdpo.calibrate.calibrate.held", fails)
    assert "nothing to fit" in raw.fails(*CALIBRATE)


# --- what evaluate says of it ------------------------------------------------------------------------


def test_evaluating_with_the_gold_that_was_fitted_to_is_said(raw: World) -> None:
    raw.run(*CALIBRATE)
    raw.run("relabel", "raw.jsonl", "--calibration", "c.json", "--out", "new.jsonl")
    evaluate = ("--prompts", "prompts.jsonl", "--gold")
    said = " ".join(raw.run("evaluate", "new.jsonl", *evaluate, "gold.jsonl").err.split())
    assert "follow from a calibration that was fitted to gold.jsonl: the figures against this gold are too good" in said
    assert "too good" not in raw.run("evaluate", "raw.jsonl", *evaluate, "gold.jsonl").err
    raw.write("other.jsonl", raw.rows("gold.jsonl")[:60])
    assert "too good" not in raw.run("evaluate", "new.jsonl", *evaluate, "other.jsonl").err
    raw.path("c.json").unlink()
    assert "too good" not in raw.run("evaluate", "new.jsonl", *evaluate, "gold.jsonl").err
