"""Agreement with gold labels: against scikit-learn and krippendorff, and by hand."""

import math
import random
import warnings
from collections import Counter
from collections.abc import Sequence

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score, f1_score, recall_score

from maskdpo.evaluate.agreement import (
    ANAH_LABELS,
    CLASSES,
    FIGURES,
    Agreement,
    ClassAgreement,
    agreement,
)
from maskdpo.schemas import Annotation, Label, Sentence, Status
from maskdpo.verdicts.gold import overlapping

LABELS = {
    "r": Label.NO_HALLUCINATION,
    "w": Label.CONTRADICTORY,
    "u": Label.UNVERIFIABLE,
    "h": Label.HALLUCINATION,
    "n": Label.NO_FACT,
}
CLASS = {"r": "right", "w": "wrong", "u": "wrong", "h": "wrong", "n": "no_fact"}


def answer(
    labels: str, name: str = "a", width: int = 4, text: str | None = None, prompt_id: str | None = None
) -> Annotation:
    sentences = [
        Sentence(start=width * i, end=width * (i + 1), label=LABELS[c])
        if c in LABELS
        else Sentence(start=width * i, end=width * (i + 1), status=Status.PARSE_ERROR)
        for i, c in enumerate(labels)
    ]
    response = text if text is not None else "x" * width * len(labels)
    return Annotation(id=name, prompt_id=prompt_id or f"p-{name}", response=response, sentences=sentences)


def library_figures(truth: Sequence[str], found: Sequence[str | None], classes: tuple[str, ...]) -> dict[str, float]:
    """The figures of labels, computed by scikit-learn and krippendorff."""
    judged = [(t, f) for t, f in zip(truth, found, strict=True) if f is not None]
    gold, said = zip(*judged, strict=True)
    one_class = len({*gold, *said}) == 1
    code = {name: float(i) for i, name in enumerate(classes)}
    ratings = [[code[t] for t in truth], [np.nan if f is None else code[f] for f in found]]
    present = [name for name in classes if name in gold]
    return {
        "accuracy": float(accuracy_score(gold, said)),
        "kappa": np.nan if one_class else float(cohen_kappa_score(gold, said, labels=classes)),
        "alpha": np.nan if one_class else float(krippendorff.alpha(ratings, level_of_measurement="nominal")),
        "balanced_accuracy": float(recall_score(gold, said, labels=present, average="macro", zero_division=0)),
        "macro_f1": float(f1_score(gold, said, labels=present, average="macro", zero_division=0)),
    }


def compared(ours: str, gold: str) -> Agreement:
    result = agreement([answer(ours)], {"a": answer(gold)})
    assert result is not None
    return result


def values(found: ClassAgreement) -> dict[str, float]:
    return {name: estimate.value for name, estimate in found.figures.items()}


def random_pairs(rng: random.Random, classes: tuple[str, ...]) -> list[tuple[str, str | None]]:
    """Some classes may be missing on either side; a fifth of the verdicts are missing."""
    gold, said = (rng.sample(classes, rng.randint(1, len(classes))) for _ in range(2))
    pairs = [(rng.choice(gold), rng.choice(said) if rng.random() < 0.8 else None) for _ in range(rng.randint(2, 30))]
    return [*pairs, (gold[0], said[0])]


@pytest.mark.parametrize("classes", [CLASSES, ANAH_LABELS])
def test_figures_of_tables_equal_those_of_the_libraries(classes: tuple[str, ...]) -> None:
    rng = random.Random(0)
    for _ in range(50):
        pairs = random_pairs(rng, classes)
        count = Counter(pairs)
        table = np.array([[count[g, j] for j in classes] for g in classes], dtype=np.float64)
        expected = library_figures(*zip(*pairs, strict=True), classes)
        both = np.stack([table, 3 * np.eye(len(classes))])  # vectorised: the second table must not leak into the first
        found = {name: figure(both)[0] for name, figure in FIGURES.items()}
        assert found == pytest.approx(expected, nan_ok=True)


def test_figures_equal_the_libraries_on_random_labels() -> None:
    rng = random.Random(3)
    gold = ["".join(rng.choices("rhn", [5, 3, 1], k=6)) for _ in range(30)]
    ours = ["".join(c if rng.random() < 0.6 else rng.choice("rwun") for c in text) for text in gold]
    result = agreement(
        [answer(text, f"a{i}") for i, text in enumerate(ours)],
        {f"a{i}": answer(text, f"a{i}") for i, text in enumerate(gold)},
    )
    truth, found = ([CLASS[c] for c in "".join(texts)] for texts in (gold, ours))
    assert result is not None
    assert (result.three.sentences, result.three.judged, result.three.coverage) == (180, 180, 1.0)
    assert values(result.three) == pytest.approx(
        {
            "accuracy": accuracy_score(truth, found),
            "kappa": cohen_kappa_score(truth, found),
            "alpha": krippendorff.alpha([truth, found], level_of_measurement="nominal"),
            "balanced_accuracy": balanced_accuracy_score(truth, found),
            "macro_f1": f1_score(truth, found, average="macro"),
        }
    )
    for estimate in result.three.figures.values():
        assert estimate.low < estimate.value < estimate.high


def test_a_confusion_table_by_hand() -> None:
    three = compared("rwnru", "rhhnr").three
    assert three.confusion.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]]
    assert three.per_class["wrong"] == pytest.approx((1 / 2, 1 / 2, 1 / 2, 2))
    assert three.per_class["no_fact"] == (0.0, 0.0, 0.0, 1)
    # pool of 10 labels: 4 right, 4 wrong, 2 no fact; 3 of 5 sentences differ
    assert values(three) == pytest.approx(
        {
            "accuracy": 2 / 5,
            "kappa": (0.4 - 0.36) / (1 - 0.36),
            "alpha": 1 - 9 * 6 / (100 - 36),
            "balanced_accuracy": (1 / 2 + 1 / 2 + 0) / 3,
            "macro_f1": (1 / 2 + 1 / 2 + 0) / 3,
        }
    )


def test_the_baseline_says_the_most_frequent_gold_class_throughout() -> None:
    three = compared("rwnru", "rhhnh").three
    assert three.majority == "wrong"
    # pool: 3 + 5 wrong, 1 right, 1 no fact
    assert three.baseline == pytest.approx(
        {
            "accuracy": 3 / 5,
            "kappa": 0.0,
            "alpha": 1 - 9 * 4 / (100 - 66),
            "balanced_accuracy": 1 / 3,
            "macro_f1": 2 * 3 / (3 + 5) / 3,
        }
    )


def test_the_baseline_is_over_what_was_judged() -> None:
    three = compared("??rw", "rrhh").three
    assert (three.majority, three.baseline["accuracy"]) == ("wrong", 1.0)


def test_topics_are_what_differs() -> None:
    """Every topic has half of its sentences right: only a topic like none of them could be otherwise."""
    names = [f"a{i}" for i in range(20)]
    result = agreement([answer("rw", name) for name in names], {name: answer("rr", name) for name in names})
    assert result is not None
    estimate = result.three.figures["accuracy"]
    others = 1 - 0.025 ** (1 / 20)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((0.5 - others / 2, 0.5, 0.5 + others / 2))


def test_the_interval_of_the_accuracy_is_that_of_its_standard_error() -> None:
    gold = {f"a{i}": answer("r", f"a{i}") for i in range(300)}
    result = agreement([answer("w" if i % 4 == 0 else "r", f"a{i}") for i in range(300)], gold)
    assert result is not None
    estimate = result.three.figures["accuracy"]
    half = 1.96 * math.sqrt(0.75 * 0.25 / 300)
    assert estimate.low == pytest.approx(0.75 - half, abs=0.15 * half)
    assert estimate.high == pytest.approx(0.75 + half, abs=0.15 * half)


def test_the_kinds_of_wrong_are_one_class() -> None:
    three = compared("wuhr", "hhhr").three
    assert values(three) == {"accuracy": 1.0, "kappa": 1.0, "alpha": 1.0, "balanced_accuracy": 1.0, "macro_f1": 1.0}
    assert compared("wuhr", "hhhr").four is None


def test_four_labels_by_hand() -> None:
    result = compared("ruunwhr", "rwunhw?")
    assert values(result.three) == {
        "accuracy": 1.0,
        "kappa": 1.0,
        "alpha": 1.0,
        "balanced_accuracy": 1.0,
        "macro_f1": 1.0,
    }
    four = result.four
    assert four is not None
    assert four.classes == ("no_hallucination", "contradictory", "unverifiable", "no_fact")
    # the gold hallucination is left out; the hallucination of the judge says none of the four
    assert four.confusion.tolist() == [[1, 0, 0, 0, 0], [0, 0, 1, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]
    assert (result.three.sentences, four.sentences, four.judged, four.coverage) == (6, 5, 4, 0.8)
    assert four.per_class["contradictory"] == pytest.approx((math.nan, 0.0, 0.0, 1), nan_ok=True)
    assert four.per_class["unverifiable"] == pytest.approx((1 / 2, 1, 2 / 3, 1))
    # pool of 8 labels: 2, 1, 3, 2; one of four sentences differs
    assert values(four) == pytest.approx(
        {
            "accuracy": 3 / 4,
            "kappa": (0.75 - 0.25) / (1 - 0.25),
            "alpha": 1 - 7 * 2 / (64 - 18),
            "balanced_accuracy": (1 + 0 + 1 + 1) / 4,
            "macro_f1": (1 + 0 + 2 / 3 + 1) / 4,
        }
    )


def test_what_was_not_judged_lowers_the_coverage_alone() -> None:
    three = compared("r??w", "rrhh").three
    assert (three.sentences, three.judged, three.coverage) == (4, 2, 0.5)
    assert values(three) == {"accuracy": 1.0, "kappa": 1.0, "alpha": 1.0, "balanced_accuracy": 1.0, "macro_f1": 1.0}
    assert three.confusion.tolist() == [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]]
    # the pool of alpha too is without the gold labels of sentences that were not judged
    whole, more = compared("rwnru", "rhhnr").three, compared("rwnru????", "rhhnrnnnn").three
    assert values(more) == pytest.approx(values(whole))
    assert more.coverage == 5 / 9


def test_gold_answers_without_an_annotation_lower_the_coverage() -> None:
    gold = {name: answer("rh", name) for name in "abc"} | {"d": answer("", "d"), "e": answer("??", "e")}
    result = agreement([answer("rw", "a"), answer("rw", "b", text="y" * 8), answer("rw", "z")], gold)
    assert result is not None
    assert (result.gold_answers, result.not_annotated, result.other_text) == (3, 2, 1)
    assert (result.three.sentences, result.three.judged) == (6, 2)
    assert result.three.coverage == pytest.approx(1 / 3)
    assert result.three.confusion.tolist() == [[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 0]]


def test_gold_sentences_without_a_label_are_not_compared() -> None:
    three = compared("rr", "r?").three
    assert (three.sentences, three.judged) == (1, 1)


def test_sentences_that_are_cut_otherwise_are_matched_by_overlap() -> None:
    long, short = answer("rw", width=6), answer("rrww", width=3)
    for ours, gold, count in ((long, short, 4), (short, long, 2)):
        result = agreement([ours], {"a": gold})
        assert result is not None
        assert (result.three.judged, result.three.figures["accuracy"].value) == (count, 1.0)


def test_the_sentence_with_the_largest_overlap_is_taken() -> None:
    ours = [Sentence(start=s, end=e, label=Label.NO_FACT) for s, e in ((0, 4), (4, 10), (10, 11))]
    assert overlapping(ours, Sentence(start=3, end=9, label=Label.NO_FACT)) is ours[1]
    assert overlapping(ours, Sentence(start=2, end=5, label=Label.NO_FACT)) is ours[0]
    assert overlapping(ours, Sentence(start=11, end=12, label=Label.NO_FACT)) is None


def test_where_nothing_can_be_compared_there_is_no_agreement() -> None:
    assert agreement([answer("r", text="abcd")], {"a": answer("r", text="abce")}) is None
    assert agreement([answer("r", "b")], {"a": answer("r")}) is None
    assert agreement([answer("?")], {"a": answer("r")}) is None
    assert agreement([answer("r")], {"a": answer("?")}) is None
    assert agreement([answer("r")], {}) is None


def test_kappa_and_alpha_are_undefined_where_both_say_one_thing_only() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = compared("rr", "rr").three.figures
    assert (str(figures["kappa"]), str(figures["alpha"])) == ("-", "-")
    assert (figures["accuracy"].value, figures["macro_f1"].value) == (1.0, 1.0)


def drawn(gold: Annotation, *probabilities: float | None) -> Annotation:
    """The gold answer with the probability with which each of its sentences was drawn."""
    sentences = [one.model_copy(update={"inclusion": p}) for one, p in zip(gold.sentences, probabilities, strict=True)]
    return gold.model_copy(update={"sentences": sentences})


def test_sentences_that_were_chosen_do_not_count_beside_drawn_ones() -> None:
    ours, gold = answer("rrrw"), drawn(answer("rwwn"), 0.5, 0.5, None, None)
    result = agreement([ours], {"a": gold})
    assert result is not None
    assert (result.three.sentences, result.chosen) == (2, 2)
    assert values(result.three)["accuracy"] == 1 / 2
    every = agreement([ours], {"a": gold}, drawn="random")
    assert every is not None
    assert (every.three.sentences, every.chosen, values(every.three)["accuracy"]) == (4, 0, 1 / 4)


def test_a_stratified_sample_has_the_figures_of_the_whole() -> None:
    """A hundred sentences, drawn whole where the judge says wrong, and one in four where it says right."""
    ours, gold = ("r" * 40 + "w" * 10), ("r" * 32 + "w" * 8 + "w" * 8 + "r" * 2)
    whole = {f"a{i}": answer(gold, f"a{i}") for i in range(2)}
    sample = {name: drawn(one, *(0.25 if i < 40 else 1.0 for i in range(50))) for name, one in whole.items()}
    for one in sample.values():  # every fourth of the first forty
        kept = [s for i, s in enumerate(one.sentences) if i >= 40 or i % 4 == 0]
        sample[one.id] = one.model_copy(update={"sentences": kept})
    judged = [answer(ours, name) for name in whole]
    found, expected = agreement(judged, sample), agreement(judged, whole)
    assert found is not None
    assert expected is not None
    assert found.three.sentences == 40
    assert values(found.three) == pytest.approx(values(expected.three), abs=0.02)
    plain = agreement(judged, sample, drawn="random")
    assert plain is not None
    assert values(plain.three)["kappa"] != pytest.approx(values(expected.three)["kappa"], abs=0.02)
