"""Which sentences are trained on, and which are held out."""

from pathlib import Path
from typing import Any

import pytest
from judge_data import REFERENCE, unjudged, write_data

from maskdpo.errors import InputError, UserError
from maskdpo.io import write_records
from maskdpo.judge_training.data import Data
from maskdpo.judge_training.examples import read_examples, read_gold, split_topics
from maskdpo.schemas import Annotation, JudgeInfo, Kind, Label, Prompt, Scores, Sentence, Status
from maskdpo.text.splitters import get_splitter
from maskdpo.verdicts.decision import Calibration, Parameters

BOTH = [Label.NO_HALLUCINATION, Label.HALLUCINATION]
TEXT = "# Title\n\nThe mill grinds. It is old. It is loud. Perhaps."


def test_what_is_not_judged_is_left_out_and_counted(tmp_path: Path) -> None:
    sentences = [
        Sentence(start=2, end=7, label=Label.NO_FACT, kind=Kind.HEADING),
        Sentence(start=9, end=25, label=Label.NO_HALLUCINATION, scores={Label.NO_HALLUCINATION: 0.9}),
        unjudged(26, 36, Status.UNSURE, scores={Label.NO_HALLUCINATION: 0.5}),
        unjudged(37, 48, Status.API_ERROR),
        Sentence(start=49, end=57, label=Label.NO_FACT),
    ]
    write_records(tmp_path / "p.jsonl", [Prompt(id="p", prompt="?", reference="x"), Prompt(id="q", prompt="?")])
    write_records(
        tmp_path / "a.jsonl",
        [
            Annotation(id="a", prompt_id="p", response=TEXT, sentences=sentences),
            Annotation(id="b", prompt_id="q", response=TEXT, sentences=sentences[1:2]),
        ],
    )
    examples, (count,) = read_examples([tmp_path / "a.jsonl"], [tmp_path / "p.jsonl"])
    assert [(e.sentence, e.label, e.scores) for e in examples] == [
        ("The mill grinds.", Label.NO_HALLUCINATION, {Label.NO_HALLUCINATION: 0.9}),
        ("Perhaps.", Label.NO_FACT, None),
    ]
    assert [TEXT[start:end] for start, end, _ in examples[1].spans] == [
        "Title", "The mill grinds.", "It is old.", "It is loud.", "Perhaps."
    ]  # fmt: skip
    assert examples[1].spans[0].kind is Kind.HEADING
    assert (count.examples, count.with_scores) == (2, 1)
    assert count.left_out == {
        "in a heading block": 1, "unsure": 1, "without a verdict (api_error)": 1, "without a reference": 1,
    }  # fmt: skip


JUDGE = JudgeInfo(name="classifier", model="m", revision="1")
SURE, CLOSE = {Label.NO_HALLUCINATION: 0.9, Label.HALLUCINATION: 0.1}, {Label.NO_HALLUCINATION: 0.55}


def calibration(judge: JudgeInfo = JUDGE, **parameters: Any) -> Calibration:
    return Calibration(judge=judge, aim="balanced", parameters=Parameters(**parameters))


def judged_file(tmp_path: Path, name: str, judge: JudgeInfo | None, *scores: Scores | None) -> Path:
    """Sentences that are right by their label."""
    sentences = [
        Sentence(start=9, end=25, label=Label.NO_HALLUCINATION),
        Sentence(start=26, end=36, label=Label.NO_HALLUCINATION),
    ]
    sentences = [one.model_copy(update={"scores": s}) for one, s in zip(sentences, scores, strict=False)]
    write_records(tmp_path / "p.jsonl", [Prompt(id="p", prompt="?", reference="x")])
    record = Annotation(id="a", prompt_id="p", response=TEXT, sentences=sentences, judge=judge)
    write_records(tmp_path / name, [record])
    return tmp_path / name


def test_a_calibration_decides_labels_and_scores_of_its_judge(tmp_path: Path) -> None:
    moved = calibration(offsets={Label.NO_HALLUCINATION: 0.0, Label.HALLUCINATION: 3.0})
    judged = judged_file(tmp_path, "judged.jsonl", JUDGE, SURE)
    gold = judged_file(tmp_path, "gold.jsonl", None, SURE)
    (one, other), counts = read_examples([judged, gold], [tmp_path / "p.jsonl"], calibration=moved)
    assert (one.label, one.scores, one.by_judge) == (Label.HALLUCINATION, moved.parameters.apply(SURE), True)
    assert (other.label, other.scores, other.by_judge) == (Label.NO_HALLUCINATION, SURE, False)
    assert counts[0].labels == {Label.HALLUCINATION: 1}


def test_what_a_calibration_finds_too_weak_is_left_out(tmp_path: Path) -> None:
    file = judged_file(tmp_path, "a.jsonl", JUDGE, CLOSE, SURE)
    strict = calibration(thresholds={"right": 0.8})
    examples, (count,) = read_examples([file], [tmp_path / "p.jsonl"], calibration=strict)
    assert [example.scores for example in examples] == [strict.parameters.apply(SURE)]
    assert count.left_out == {"unsure by the calibration": 1}


def test_a_calibration_of_another_judge_is_refused(tmp_path: Path) -> None:
    fine = judged_file(tmp_path, "a.jsonl", JUDGE, SURE)
    other = judged_file(tmp_path, "b.jsonl", JudgeInfo(name="llm", model="m"), SURE)
    with pytest.raises(InputError, match=r"b.jsonl: 'a': the calibration was made for another judge \(name"):
        read_examples([fine, other], [tmp_path / "p.jsonl"], calibration=calibration())
    people = judged_file(tmp_path, "c.jsonl", None, SURE)
    with pytest.raises(UserError, match="no sentence to train on is labelled by one"):
        read_examples([people], [tmp_path / "p.jsonl"], calibration=calibration())


def test_scores_from_before_a_calibration_are_not_learnt_by_mistake(tmp_path: Path) -> None:
    relabelled = JUDGE.model_copy(update={"calibration": "hash"})
    file, prompts = judged_file(tmp_path, "a.jsonl", relabelled, SURE), [tmp_path / "p.jsonl"]
    with pytest.raises(InputError, match=r"a.jsonl: has labels by a calibration.*`calibration`.*`--hard`"):
        read_examples([file], prompts)
    assert len(read_examples([file], prompts, soft=False)[0]) == 1
    assert len(read_examples([file], prompts, calibration=calibration())[0]) == 1
    bare = judged_file(tmp_path, "b.jsonl", relabelled, None)
    assert len(read_examples([bare], prompts)[0]) == 1


def test_text_that_nobody_has_labelled_is_split_as_annotate_does(tmp_path: Path) -> None:
    file = judged_file(tmp_path, "a.jsonl", None, None)  # the first sentence of several
    (one,), _ = read_examples([file], [tmp_path / "p.jsonl"])
    assert one.spans == tuple(get_splitter("markdown").split(TEXT, "en"))


def test_files_are_mixed_with_weights_and_may_have_prompts_of_their_own(tmp_path: Path) -> None:
    first = write_data(tmp_path, BOTH, 4, name="one")
    second = write_data(tmp_path, BOTH, 6, name="two")
    examples, counts = read_examples([first[0], second[0]], [first[1], second[1]], [1.0, 0.25])
    assert [e.weight for e in examples] == [1.0] * 4 + [0.25] * 6
    assert [(c.file, c.examples) for c in counts] == [("one.jsonl", 4), ("two.jsonl", 6)]
    assert len({e.id for e in examples}) == 10
    with pytest.raises(InputError, match=r"two.jsonl:1: prompt_id: no prompt has the id 'two-0'"):
        read_examples([first[0], second[0]], [first[1]])


def test_nothing_to_train_on_is_said_with_the_reasons(tmp_path: Path) -> None:
    write_records(tmp_path / "p.jsonl", [Prompt(id="p", prompt="?", reference="x")])
    sentence = unjudged(0, 3, Status.UNSURE)
    write_records(tmp_path / "a.jsonl", [Annotation(id="a", prompt_id="p", response="Yes", sentences=[sentence])])
    with pytest.raises(UserError, match=r"a.jsonl: no labelled sentence to train on: 1 unsure"):
        read_examples([tmp_path / "a.jsonl"], [tmp_path / "p.jsonl"])
    with pytest.raises(InputError, match=r"a.jsonl: holds no labelled sentence"):
        read_gold(tmp_path / "a.jsonl", [tmp_path / "p.jsonl"])


def test_no_topic_is_on_both_sides_of_the_split(tmp_path: Path) -> None:
    labelled, prompts = write_data(tmp_path, BOTH, 200, topics=20)
    examples, _ = read_examples([labelled], [prompts])
    train, held_out = split_topics(examples, 0.25, seed=3)
    assert not {e.topic for e in train} & {e.topic for e in held_out}
    assert len({e.topic for e in held_out}) == 5
    assert len(train) + len(held_out) == 200
    assert split_topics(examples, 0.25, seed=3) == (train, held_out)
    assert split_topics(examples, 0.25, seed=4)[1] != held_out
    assert split_topics(examples, 0.0, seed=3) == (examples, [])
    few = split_topics(examples, 0.25, seed=3, most=15)[1]
    assert few == [e for e in held_out if e in few]
    assert len({e.topic for e in few}) == 2  # a topic has ten sentences


def test_gold_topics_that_chose_the_weights_are_seen_too(tmp_path: Path) -> None:
    labelled, prompts = write_data(tmp_path, BOTH, 24, topics=4)
    train, held_out = split_topics(read_examples([labelled], [prompts])[0], 0.25, seed=0)
    spec: Any = None
    for gold in (train, held_out):
        data = Data(train, held_out, gold, [], spec, tuple(BOTH), True, spec)
        assert data.gold_seen == {example.topic for example in gold}


def test_prompts_about_one_reference_are_one_topic() -> None:
    one, other = (Prompt(id=id_, prompt="?", reference=REFERENCE) for id_ in "ab")
    assert one.shared_topic == other.shared_topic
    assert one.shared_topic != Prompt(id="c", prompt="?", reference="Something else.").shared_topic
    assert one.model_copy(update={"topic": "mills"}).shared_topic == "mills"
    assert Prompt(id="d", prompt="?", reference=[" "]).shared_topic == "d"


def test_a_single_topic_cannot_be_held_out(tmp_path: Path) -> None:
    labelled, prompts = write_data(tmp_path, BOTH, 4, topics=1)
    examples, _ = read_examples([labelled], [prompts])
    with pytest.raises(UserError, match=r"about one topic.*`heldout` 0"):
        split_topics(examples, 0.1, seed=0)
