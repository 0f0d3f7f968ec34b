"""Wrong sentences made out of right ones: changed in one place, and not said by the reference."""

import json
import random
from pathlib import Path

import pytest

from maskdpo.judge_training.augment import augmented, change
from maskdpo.judge_training.examples import LabelledSentence
from maskdpo.schemas import Label, Prompt

CURIE = (
    "Marie Curie was born in Warsaw in 1867. She studied physics at the Sorbonne.",
    "The Nobel Prize in Chemistry followed in 1911. Later she worked in Paris with 120 students.",
    "Her daughter met Ernest Rutherford in Manchester. The town of Sancellemoz lies in France.",
)


def right(sentence: str, reference: tuple[str, ...] = CURIE, id_: str = "a#0") -> LabelledSentence:
    prompt = Prompt(id="p", prompt="?", reference=list(reference))
    return LabelledSentence(id_, prompt, "t", sentence, (0, len(sentence)), sentence, Label.NO_HALLUCINATION)


def changes(sentence: str, reference: tuple[str, ...] = CURIE) -> set[str]:
    found = (change(right(sentence, reference), random.Random(seed)) for seed in range(40))
    return {one.sentence for one in found if one is not None}


def test_one_value_is_changed_and_the_sentence_is_wrong_then() -> None:
    for seed in range(20):
        one = change(right("Marie Curie was born in Warsaw in 1867."), random.Random(seed))
        assert one is not None
        assert (one.label, one.scores) == (Label.HALLUCINATION, None)
        assert one.changed is not None
        old, new = one.changed.split(" -> ")
        assert one.sentence.replace(new, old, 1) == "Marie Curie was born in Warsaw in 1867."
        assert one.sentence not in " ".join(CURIE)


def test_numbers_keep_their_form() -> None:
    for sentence in changes("She worked with 120 students."):
        words = sentence.split()
        assert words[:3] + words[4:] == ["She", "worked", "with", "students."]
        assert words[3].isdigit()
        assert words[3] != "120"


def test_a_change_that_the_reference_says_too_is_no_negative() -> None:
    reference = ("France borders Germany and Spain. It has borders with Italy.", "Chile borders Peru.")
    assert not {name for s in changes("France borders Germany.", reference) for name in ("Spain", "Italy") if name in s}
    dated = ("Ann won the cup in 1990 and in 1994.", "The town was founded in 1890.")
    found = changes("Ann won the cup in 1990.", dated)
    assert found
    assert not any("1994" in sentence for sentence in found)


def test_nothing_is_changed_where_the_value_is_not_in_the_reference() -> None:
    assert changes("She had 7 cats.") == set()
    assert changes("Science matters.") == set()


def test_the_same_seed_changes_the_same_sentences() -> None:
    many = [right("Marie Curie was born in Warsaw in 1867.", id_=f"a{i}#0") for i in range(200)]
    half = augmented(many, 0.5, seed=1)
    assert half == augmented(many, 0.5, seed=1) != augmented(many, 0.5, seed=2)
    assert 70 < len(half) < 130
    assert augmented(many, 0.0, seed=1) == []
    wrong = [LabelledSentence(e.id, e.prompt, e.topic, e.answer, e.span, e.sentence, Label.UNVERIFIABLE) for e in many]
    assert augmented(wrong, 1.0, seed=1) == []


DATA = Path(__file__).parents[3] / "shared" / "data" / "judge" / "summedits.jsonl"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_file(), reason="the data is not here")
def test_no_changed_sentence_of_real_data_stands_in_its_reference() -> None:
    rows = [json.loads(line) for line in DATA.read_text().splitlines()[:600]]
    made = [right(r["sentence"], (r["reference"],), r["id"]) for r in rows if r["label"] == "no_hallucination"]
    found = augmented(made, 1.0, seed=0)
    assert len(found) > len(made) / 5
    assert not [e.id for e in found if e.sentence in "".join(e.prompt.passages)]
