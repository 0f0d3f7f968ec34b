"""Agreement with gold labels: against sklearn, and by hand."""

import random
import warnings

import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from maskdpo.evaluate.agreement import agreement, overlapping
from maskdpo.schemas import Annotation, Label, Sentence, Status

LABELS = {
    "r": Label.NO_HALLUCINATION,
    "w": Label.CONTRADICTORY,
    "u": Label.UNVERIFIABLE,
    "h": Label.HALLUCINATION,
    "n": Label.NO_FACT,
}
CLASS = {"r": "right", "w": "wrong", "u": "wrong", "h": "wrong", "n": "no_fact"}


def answer(labels: str, name: str = "a", width: int = 4, text: str | None = None) -> Annotation:
    sentences = [
        Sentence(start=width * i, end=width * (i + 1), label=LABELS[c])
        if c in LABELS
        else Sentence(start=width * i, end=width * (i + 1), status=Status.PARSE_ERROR)
        for i, c in enumerate(labels)
    ]
    response = text if text is not None else "x" * width * len(labels)
    return Annotation(id=name, prompt_id="p", response=response, sentences=sentences)


def test_figures_equal_sklearn_on_random_labels() -> None:
    rng = random.Random(3)
    gold = ["".join(rng.choices("rhn", [5, 3, 1], k=6)) for _ in range(30)]
    ours = ["".join(c if rng.random() < 0.6 else rng.choice("rwun") for c in text) for text in gold]
    result = agreement(
        [answer(text, f"a{i}") for i, text in enumerate(ours)],
        {f"a{i}": answer(text, f"a{i}") for i, text in enumerate(gold)},
    )
    truth, found = ([CLASS[c] for c in "".join(texts)] for texts in (gold, ours))
    assert result is not None
    assert (result.gold_sentences, result.judged, result.coverage) == (180, 180, 1.0)
    assert result.accuracy.value == pytest.approx(accuracy_score(truth, found))
    assert result.kappa.value == pytest.approx(cohen_kappa_score(truth, found))
    assert result.macro_f1 == pytest.approx(f1_score(truth, found, average="macro"))
    assert result.accuracy.low < result.accuracy.value < result.accuracy.high
    assert result.kappa.low < result.kappa.value < result.kappa.high
    assert result.confusion.sum() == 180


def test_a_confusion_table_by_hand() -> None:
    result = agreement([answer("rwnru")], {"a": answer("rhhnr")})
    assert result is not None
    assert result.confusion.tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert result.accuracy.value == pytest.approx(2 / 5)
    assert result.per_class["wrong"] == pytest.approx((1 / 2, 1 / 2, 1 / 2, 2))
    assert result.per_class["no_fact"] == (0.0, 0.0, 0.0, 1)
    assert result.kappa.value == pytest.approx((0.4 - 0.36) / (1 - 0.36))


def test_the_kinds_of_wrong_are_one_class() -> None:
    result = agreement([answer("wuhr")], {"a": answer("hhhr")})
    assert result is not None
    assert result.accuracy.value == result.kappa.value == 1.0


def test_what_was_not_judged_lowers_the_coverage_and_is_no_error() -> None:
    result = agreement([answer("r??w")], {"a": answer("rrhh")})
    assert result is not None
    assert (result.gold_sentences, result.judged, result.coverage) == (4, 2, 0.5)
    assert result.accuracy.value == 1.0


def test_gold_sentences_without_a_label_are_not_compared() -> None:
    result = agreement([answer("rr")], {"a": answer("r?")})
    assert result is not None
    assert (result.gold_sentences, result.judged) == (1, 1)


def test_sentences_that_are_cut_otherwise_are_matched_by_overlap() -> None:
    long, short = answer("rw", width=6), answer("rrww", width=3)
    for ours, gold, count in ((long, short, 4), (short, long, 2)):
        result = agreement([ours], {"a": gold})
        assert result is not None
        assert (result.judged, result.accuracy.value) == (count, 1.0)


def test_the_sentence_with_the_largest_overlap_is_taken() -> None:
    ours = [Sentence(start=s, end=e, label=Label.NO_FACT) for s, e in ((0, 4), (4, 10), (10, 11))]
    assert overlapping(ours, Sentence(start=3, end=9, label=Label.NO_FACT)) is ours[1]
    assert overlapping(ours, Sentence(start=2, end=5, label=Label.NO_FACT)) is ours[0]
    assert overlapping(ours, Sentence(start=11, end=12, label=Label.NO_FACT)) is None


def test_an_answer_with_another_text_or_id_is_not_compared() -> None:
    assert agreement([answer("r", text="abcd")], {"a": answer("r", text="abce")}) is None
    assert agreement([answer("r", "b")], {"a": answer("r")}) is None
    assert agreement([answer("?")], {"a": answer("r")}) is None


def test_kappa_is_undefined_where_both_say_one_thing_only() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        result = agreement([answer("rr")], {"a": answer("rr")})
    assert result is not None
    assert str(result.kappa) == "-"
    assert result.accuracy.value == 1.0
