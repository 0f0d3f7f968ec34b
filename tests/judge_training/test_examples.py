"""Which sentences are trained on, and which are held out."""

from pathlib import Path

import pytest
from judge_data import REFERENCE, unjudged, write_data

from maskdpo.errors import InputError, UserError
from maskdpo.io import write_records
from maskdpo.judge_training.examples import read_examples, read_gold, split_topics
from maskdpo.schemas import Annotation, Kind, Label, Prompt, Sentence, Status

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
    assert [TEXT[start:][:8] for start in examples[1].earlier] == ["The mill", "It is ol", "It is lo"]
    assert (count.examples, count.with_scores) == (2, 1)
    assert count.left_out == {
        "in a heading block": 1, "unsure": 1, "without a verdict (api_error)": 1, "without a reference": 1,
    }  # fmt: skip


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
