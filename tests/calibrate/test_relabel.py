"""Labels by a calibration: ``annotate --calibration``, ``--min-confidence`` and ``relabel``; and what unsure means."""

import json
from collections import Counter
from pathlib import Path

import pytest
from calibration_world import ANNOTATE, CALIBRATE, World, make_world

from maskdpo.annotate.relabel import relabel
from maskdpo.io import read_records
from maskdpo.schemas import Annotation, Pair, PairSentence, Status
from maskdpo.train.data.weights import METHODS, sentence_weight
from maskdpo.verdicts.decision import Calibration, Rule, read_calibration


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> World:
    return make_world(tmp_path, monkeypatch, capsys)


@pytest.fixture
def calibrated(world: World) -> World:
    """Some sentences fail, and of some nothing but a label is known."""
    rows = world.rows("responses.jsonl")
    rows[0]["response"] += " This one fails. This one is silent."
    world.write("responses.jsonl", rows)
    gold = world.rows("gold.jsonl")
    gold[0]["response"] = rows[0]["response"]
    world.write("gold.jsonl", gold)
    world.run(*ANNOTATE, "raw.jsonl")
    world.run(*CALIBRATE)
    return world


RULES = [
    ("--calibration", "c.json"),
    ("--min-confidence", "0.9"),
    ("--calibration", "c.json", "--min-confidence", "0.7"),
]


@pytest.mark.parametrize("rule", RULES)
def test_relabel_gives_what_annotate_would_have_given(calibrated: World, rule: tuple[str, ...]) -> None:
    calibrated.run(*ANNOTATE, "annotated.jsonl", *rule)
    calibrated.run("relabel", "raw.jsonl", *rule, "--out", "relabelled.jsonl")
    assert calibrated.path("relabelled.jsonl").read_bytes() == calibrated.path("annotated.jsonl").read_bytes()
    assert calibrated.path("relabelled.jsonl").read_bytes() != calibrated.path("raw.jsonl").read_bytes()


def test_a_rule_replaces_an_earlier_one_and_no_rule_gives_the_judges_own_labels_back(calibrated: World) -> None:
    for i, rule in enumerate(RULES):
        calibrated.run("relabel", "raw.jsonl", *rule, "--out", f"first{i}.jsonl")
        calibrated.run("relabel", f"first{i}.jsonl", *RULES[0], "--out", "second.jsonl")
        assert calibrated.path("second.jsonl").read_bytes() == calibrated.path("first0.jsonl").read_bytes()
        calibrated.run("relabel", f"first{i}.jsonl", "--out", "back.jsonl")
        assert calibrated.path("back.jsonl").read_bytes() == calibrated.path("raw.jsonl").read_bytes()


def test_labels_and_confidences_are_those_of_the_calibration(calibrated: World) -> None:
    calibrated.run("relabel", "raw.jsonl", "--calibration", "c.json", "--out", "new.jsonl")
    calibration = read_calibration(calibrated.path("c.json"))
    raw = {record.id: record for record in read_records(calibrated.path("raw.jsonl"), Annotation)}
    seen: Counter[str] = Counter()
    for record in read_records(calibrated.path("new.jsonl"), Annotation):
        assert record.judge is not None
        assert record.judge.calibration == calibration.hash
        for old, new in zip(raw[record.id].sentences, record.sentences, strict=True):
            assert new.scores == old.scores
            if new.scores is None:  # a heading, a failure, a verdict without scores
                assert new == old
                seen[str(new.status)] += 1
                continue
            probability = calibration.parameters.apply(new.scores)
            assert new.label is not None
            assert new.confidence == pytest.approx(probability[new.label])
            seen["changed"] += new.label != old.label
    assert seen["changed"] > 50
    assert seen["api_error"] == 1
    assert seen["ok"] == len(raw) + 1


def test_the_hash_of_the_calibration_is_computed_once_not_per_answer(
    calibrated: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = Rule(read_calibration(calibrated.path("c.json")))
    of_file, computed = Calibration.hash.fget, []  # type: ignore[attr-defined]
    monkeypatch.setattr(Calibration, "hash", property(lambda self: computed.append(1) or of_file(self)))
    relabel(calibrated.path("raw.jsonl"), calibrated.path("new.jsonl"), rule)
    assert len(computed) == 1


def test_what_is_said_at_the_end(calibrated: World) -> None:
    ended = calibrated.run("relabel", "raw.jsonl", *RULES[2], "--out", "new.jsonl", "--summary", "s.json")
    said = " ".join(ended.err.split())
    assert "1 sentence has no scores, so the calibration has no say there: the label of the judge stays" in said
    assert "1 sentence has no confidence to compare with --min-confidence: the label stays" in said
    summary = json.loads(calibrated.path("s.json").read_text())
    unsure = summary["whole_file"]["statuses"]["unsure"]
    assert summary["now_unsure"] == unsure > 20
    assert summary["whole_file"]["failed"] == 1  # unsure is no failure
    assert "unsure" in ended.out
    assert "not judged: api_error" in ended.out
    meta = json.loads(calibrated.path("new.jsonl.meta.json").read_text())
    assert meta["options"]["calibration"] == read_calibration(calibrated.path("c.json")).hash
    shown = calibrated.run("lineage", "new.jsonl").out
    assert all(name in shown for name in ("raw.jsonl", "c.json", "gold.jsonl", "responses.jsonl"))


def test_nearly_all_the_same_is_said_with_what_to_do(calibrated: World) -> None:
    """Every answer has a heading without a judge: it does not hide what the judge says."""
    rows = calibrated.rows("responses.jsonl")
    for row in rows:
        row["response"] = "# Claims\n\nClaim is likely by 900 parts."
    calibrated.write("responses.jsonl", rows)
    said = " ".join(calibrated.run(*ANNOTATE, "same.jsonl").err.split())
    assert "100% of the 120 labels of the judge are right" in said
    assert "maskdpo calibrate" in said
    calibrated.write("responses.jsonl", rows[:19])
    assert "labels of the judge are" not in calibrated.run(*ANNOTATE, "few.jsonl").err


def test_a_calibration_of_another_judge_is_refused_by_what_differs(calibrated: World) -> None:
    words = [word.replace("judge_a", "judge_b") for word in ANNOTATE]
    error = calibrated.fails(*words, "b.jsonl", "--calibration", "c.json")
    assert "made for another judge (model: 'a' there, 'b' here)" in error
    calibrated.run(*words, "b.jsonl")
    assert "made for another judge" in calibrated.fails("relabel", "b.jsonl", *RULES[0], "--out", "n.jsonl")
    assert "judge: is missing" in calibrated.fails("relabel", "gold.jsonl", "--out", "n.jsonl")
    assert "gold.jsonl" in calibrated.fails("relabel", "raw.jsonl", "--calibration", "gold.jsonl", "--out", "n.jsonl")
    assert "is an input" in calibrated.fails("relabel", "raw.jsonl", "--out", "raw.jsonl")


def test_a_run_with_another_rule_does_not_continue_an_output(calibrated: World) -> None:
    assert "min_confidence: None -> 0.9" in calibrated.fails(*ANNOTATE, "raw.jsonl", "--min-confidence", "0.9")
    assert "calibration: None -> " in calibrated.fails(*ANNOTATE, "raw.jsonl", "--calibration", "c.json")


def test_unsure_sentences_are_not_asked_again(calibrated: World) -> None:
    rule = ("--min-confidence", "0.9")
    calibrated.run(*ANNOTATE, "out.jsonl", *rule)
    before = calibrated.path("out.jsonl").read_bytes()
    assert b'"unsure"' in before
    calibrated.run(*ANNOTATE, "out.jsonl", *rule, "--retry-failed", "--summary", "s.json")
    assert json.loads(calibrated.path("s.json").read_text())["this_run"]["sentences_asked_again"] == 1
    assert calibrated.path("out.jsonl").read_bytes() == before


def test_old_annotations_without_scores_keep_their_labels(calibrated: World) -> None:
    rows = calibrated.rows("raw.jsonl")
    old = [
        row | {"sentences": [{k: v for k, v in s.items() if k != "scores"} for s in row["sentences"]]} for row in rows
    ]
    calibrated.write("old.jsonl", old)
    said = " ".join(calibrated.run("relabel", "old.jsonl", *RULES[0], "--out", "new.jsonl").err.split())
    assert "361 sentences have no scores" in said
    for before, after in zip(old, calibrated.rows("new.jsonl"), strict=True):
        assert after["sentences"] == before["sentences"]
    calibrated.run("relabel", "old.jsonl", *RULES[1], "--out", "weak.jsonl")
    calibrated.run("relabel", "weak.jsonl", "--out", "back.jsonl")  # the confidence has been kept as a score
    for before, after in zip(old, calibrated.rows("back.jsonl"), strict=True):
        assert [s.get("label") for s in after["sentences"]] == [s.get("label") for s in before["sentences"]]


def test_parquet(calibrated: World) -> None:
    calibrated.run("relabel", "raw.jsonl", *RULES[2], "--out", "new.jsonl")
    calibrated.run("relabel", "raw.jsonl", *RULES[2], "--out", "new.parquet")
    jsonl, parquet = (list(read_records(calibrated.path(f"new.{e}"), Annotation)) for e in ("jsonl", "parquet"))
    assert parquet == jsonl


def test_unsure_sentences_in_pairs_and_masks(calibrated: World) -> None:
    """They count as not judged; masks leave them out, ``dpo`` trains on them as on all."""
    rows = calibrated.rows("raw.jsonl")
    for row, per_mille in zip(rows[:2], ((900, 910, 500), (900, 10, 500)), strict=True):
        row["prompt_id"] = "q0"
        for sentence, p in zip(row["sentences"][1:], per_mille, strict=False):
            sentence["scores"] = {"no_hallucination": p / 1000, "hallucination": 1 - p / 1000}
    for row in rows[:2]:
        row["sentences"] = row["sentences"][:4]
        for sentence in row["sentences"][1:]:
            right = sentence["scores"]["no_hallucination"]
            sentence["label"] = "no_hallucination" if right >= 0.5 else "hallucination"
            sentence["confidence"] = max(right, 1 - right)
    calibrated.write("two.jsonl", rows[:2])
    calibrated.run("relabel", "two.jsonl", "--min-confidence", "0.8", "--out", "new.jsonl")
    options = ("--min-coverage", "0.7", "--test-size", "0", "--max-similarity", "1")
    ended = calibrated.run("build-pairs", "prompts.jsonl", "new.jsonl", "--out", "pairs.jsonl", *options)
    assert "not judged" in ended.out
    (pair,) = read_records(calibrated.path("pairs.jsonl"), Pair)
    assert (pair.chosen_score, pair.rejected_score) == (2 / 4, 1 / 4)  # of all four: heading and unsure ones too
    sentence = pair.chosen_sentences[3]
    assert (sentence.label, sentence.confidence) == (None, None)
    weights = {name: sentence_weight(sentence, METHODS[name].chosen) for name in ("mask-dpo", "soft", "dpo")}
    assert weights == {"mask-dpo": 0, "soft": 0, "dpo": 1}
    ended = calibrated.call("build-pairs", "prompts.jsonl", "new.jsonl", "--out", "other.jsonl", "--test-size", "0")
    assert ended.code == 2
    assert "a smaller share of sentences judged than --min-coverage" in " ".join(ended.err.split())


def test_soft_counts_with_the_calibrated_confidence(calibrated: World) -> None:
    calibrated.run("relabel", "raw.jsonl", *RULES[0], "--out", "new.jsonl")
    record = next(read_records(calibrated.path("new.jsonl"), Annotation))
    found = next(s for s in record.sentences if s.status is Status.OK and s.scores)
    calibration = read_calibration(calibrated.path("c.json"))
    assert found.scores is not None and found.label is not None
    told = PairSentence(start=found.start, end=found.end, label=found.label, confidence=found.confidence)
    method = METHODS["soft"]
    row = method.chosen if found.label == "no_hallucination" else method.rejected
    assert sentence_weight(told, row, by_confidence=True) == pytest.approx(
        calibration.parameters.apply(found.scores)[found.label]
    )


def test_neither_command_replaces_a_file_that_maskdpo_has_not_made(calibrated: World) -> None:
    calibrated.path("theirs.jsonl").write_bytes(calibrated.path("gold.jsonl").read_bytes())
    assert "no record says that maskdpo made it" in calibrated.fails("relabel", "raw.jsonl", "--out", "theirs.jsonl")
    words = [word if word != "c.json" else "theirs.jsonl" for word in CALIBRATE]
    assert "no record says that maskdpo made it" in calibrated.fails(*words)


def test_nearly_all_unsure_is_said(calibrated: World) -> None:
    ended = calibrated.run("relabel", "raw.jsonl", "--min-confidence", "1", "--out", "unsure.jsonl")
    assert "sentences are unsure, nearly all" in ended.err
