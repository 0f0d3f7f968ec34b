"""Prediction-powered estimates: by hand, and whether their 95% intervals hold the truth in 95% of draws."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from maskdpo.errors import UserError
from maskdpo.evaluate.prediction_powered import (
    FIELDS,
    FIGURES,
    check_drawn,
    compare_powered,
    powered,
    topic_sums,
)
from maskdpo.schemas import Annotation, Kind, Label, Sentence, Status

LABELS = {"r": Label.NO_HALLUCINATION, "w": Label.CONTRADICTORY, "n": Label.NO_FACT}
ALL, PRECISION = FIGURES
TOPICS, SIZE = 150, 8
Array = NDArray[Any]


def answer(labels: str, name: str, probabilities: str = "", prompt_id: str = "") -> Annotation:
    """Sentences of two characters; ``?``: not judged. ``probabilities``: one digit per sentence, tenths; -: unknown."""
    sentences = []
    for i, letter in enumerate(labels):
        span: dict[str, Any] = {"start": 2 * i, "end": 2 * i + 2}
        if probabilities and probabilities[i] != "-":
            span["inclusion"] = int(probabilities[i]) / 10
        verdict = {"label": LABELS[letter]} if letter in LABELS else {"status": Status.REFUSED}
        sentences.append(Sentence(**span, **verdict))
    return Annotation(id=name, prompt_id=prompt_id or name, response="x." * len(labels), sentences=sentences)


def by_id(*answers: Annotation) -> dict[str, Annotation]:
    return {record.id: record for record in answers}


def test_sums_by_hand() -> None:
    judged = [answer("rrw?", "a", prompt_id="p"), answer("rn", "b", prompt_id="q"), answer("r", "c", prompt_id="p")]
    gold = by_id(answer("rwr?", "a", "5-25"), answer("r", "c").model_copy(update={"response": "y."}))
    sums = topic_sums(judged, gold, {"p": "t"})
    assert list(sums) == ["t", "q"]
    # two gold sentences have a probability and a label: right, said to be right, 1/0.5; right, said to be wrong, 1/0.2
    assert dict(zip(FIELDS, sums["t"], strict=True)) == pytest.approx(
        {"sentences": 5, "right": 3, "wrong": 1, "gold": 2, "w": 7, "w_squared": 29}
        | {"gold_right": 7, "gold_wrong": 0, "said_right": 2, "said_wrong": 5, "known": 0}
    )
    assert sums["q"].tolist() == [2, 1] + [0] * 9
    alike = topic_sums(judged, gold, {"p": "t"}, "random")["t"]
    assert dict(zip(FIELDS, alike, strict=True))["w"] == 3


def test_a_sentence_counts_once_however_gold_is_cut() -> None:
    whole = Annotation(id="a", prompt_id="a", response="x.x.", sentences=[Sentence(start=0, end=4, label=LABELS["r"])])
    sums = topic_sums([whole], by_id(answer("wr", "a")), {}, "random")["a"]
    assert (sums[FIELDS.index("gold")], sums[FIELDS.index("gold_wrong")]) == (1, 1)


def test_gold_on_everything_is_the_share_in_gold() -> None:
    truth = ["rrwn", "rw", "wwr", "rnn"]
    judged = [answer("r" * len(labels), f"a{i}") for i, labels in enumerate(truth)]
    gold = by_id(*(answer(labels, f"a{i}") for i, labels in enumerate(truth)))
    found = powered(topic_sums(judged, gold, {}, "random"))
    assert not isinstance(found, str)
    assert (found.gold_sentences, found.gold_topics) == (12, 4)
    assert found.figures[ALL].value == pytest.approx(5 / 12)
    assert found.figures[PRECISION].value == pytest.approx(5 / 9)


def test_the_rectifier_by_hand() -> None:
    """A judge who is right but for one kind of error: the judge's share is moved by the share of errors in gold."""
    judged = [answer("rrww", f"a{i}") for i in range(50)]
    gold = by_id(*(answer("rrww" if i else "rwww", f"a{i}") for i in range(5)))
    found = powered(topic_sums(judged, gold, {}, "random"))
    assert not isinstance(found, str)
    # every topic has the same judge's labels: they carry no information, and all answers are those of gold
    assert found.figures[ALL].value == pytest.approx(9 / 20)
    judged = [answer("rrrr" if i % 2 else "wwww", f"a{i}") for i in range(50)]
    gold = by_id(*(answer("rrrr" if i % 2 else "wwww", f"a{i}") for i in range(2, 9)))
    found = powered(topic_sums(judged, gold, {}, "random"))
    assert not isinstance(found, str)
    assert found.weight_of_judge[ALL] == pytest.approx(1.0, abs=0.01)
    assert found.figures[ALL].value == pytest.approx(0.5, abs=0.001), "3 of 7 are right, and the judge knows the rest"


def world(rng: np.random.Generator, spread: float) -> tuple[Array, Array]:
    """[topics, sentences] classes 0 right, 1 wrong, 2 no fact: true ones, and those of a judge who calls a fifth of
    the wrong sentences right. ``spread``: how much topics differ, 0: not at all."""
    shares = np.array([0.5, 0.35, 0.15])
    by_topic = rng.dirichlet(shares * (1 / spread - 1), TOPICS) if spread else np.tile(shares, (TOPICS, 1))
    draw = rng.random((TOPICS, SIZE, 1))
    truth = np.minimum((draw > by_topic.cumsum(1)[:, None]).sum(-1), 2)
    return truth, np.where((truth == 1) & (rng.random(truth.shape) < 0.2), 0, truth)


def chosen(rng: np.random.Generator, design: str, judged: Array) -> Array:
    """[topics, sentences] probability of every gold sentence; 0: not in gold. 100 sentences, or about as many."""
    chance = np.zeros(judged.size)
    if design == "topics":  # all sentences of some topics
        chance.reshape(judged.shape)[rng.choice(TOPICS, 100 // SIZE, replace=False)] = 100 // SIZE / TOPICS
    elif design == "sentences":
        chance[rng.choice(judged.size, 100, replace=False)] = 100 / judged.size
    else:  # "strata": half of gold among what the judge calls right, whose errors are looked for
        for label, number in ((0, 50), (1, 30), (2, 20)):
            stratum = np.flatnonzero(judged == label)
            chance[rng.choice(stratum, number, replace=False)] = number / len(stratum)
    return chance.reshape(judged.shape)


def sums_of(truth: Array, judged: Array, chance: Array, headings: Array | None = None) -> Mapping[str, Array]:
    """``headings``: [topics] sentences of each topic that are no fact by their kind."""
    w = np.divide(1, chance, out=np.zeros_like(chance), where=chance > 0)
    table = [np.ones_like(w), judged == 0, judged == 1, w > 0, w, w * w]
    table += [w * (labels == label) for labels in (truth, judged) for label in (0, 1)]
    columns = [column.sum(1) for column in table] + [np.zeros(len(w)) if headings is None else headings]
    return {str(i): row for i, row in enumerate(np.stack(columns, 1).astype(float))}


TRUE = {ALL: 0.5, PRECISION: 0.5 / 0.85}


@pytest.mark.parametrize("spread", [0.0, 0.2], ids=["alike", "topics-differ"])
@pytest.mark.parametrize("design", ["sentences", "strata", "topics"])
def test_intervals_hold_the_truth_where_those_of_the_judge_do_not(design: str, spread: float) -> None:
    rng = np.random.default_rng(0)
    resamples = rng.multinomial(TOPICS, np.full(TOPICS, 1 / TOPICS), 400).astype(float)
    draws = 500
    held = dict.fromkeys(FIGURES, 0)
    plain = dict.fromkeys(FIGURES, 0)
    errors = {name: [] for name in FIGURES}
    for _ in range(draws):
        truth, judged = world(rng, spread)
        sums = sums_of(truth, judged, chosen(rng, design, judged))
        found = powered(sums)
        assert not isinstance(found, str)
        n, right, wrong = (resamples @ np.stack(list(sums.values()))[:, :3]).T
        for name, judge in ((ALL, right / n), (PRECISION, right / (right + wrong))):
            low, high = np.quantile(judge, [0.025, 0.975])
            plain[name] += low <= TRUE[name] <= high
            held[name] += found.figures[name].low <= TRUE[name] <= found.figures[name].high
            errors[name].append(found.figures[name].value - TRUE[name])
    for name in FIGURES:
        assert held[name] / draws >= 0.93
        assert plain[name] / draws < 0.5
        assert abs(np.mean(errors[name])) < 0.01


@pytest.mark.parametrize("design", ["sentences", "strata", "topics"])
def test_a_quarter_of_headings_without_gold_biases_nothing(design: str) -> None:
    """Nobody labels headings: right / all counts them all the same, and topics with many of them have less else."""
    rng = np.random.default_rng(7)
    draws, held = 300, dict.fromkeys(FIGURES, 0)
    errors: dict[str, list[float]] = {name: [] for name in FIGURES}
    true = {ALL: 0.75 * TRUE[ALL], PRECISION: TRUE[PRECISION]}
    for _ in range(draws):
        truth, judged = world(rng, 0.2)
        headings = rng.poisson(SIZE / 3, TOPICS)
        found = powered(sums_of(truth, judged, chosen(rng, design, judged), headings))
        assert not isinstance(found, str)
        for name in FIGURES:
            held[name] += found.figures[name].low <= true[name] <= found.figures[name].high
            errors[name].append(found.figures[name].value - true[name])
    for name in FIGURES:
        assert held[name] / draws >= 0.93
        assert abs(np.mean(errors[name])) < 0.01


def test_headings_and_code_are_known_and_count_in_right_of_all_alone() -> None:
    def with_heading(record: Annotation) -> Annotation:
        heading = Sentence(start=0, end=2, label=LABELS["n"], kind=Kind.HEADING)
        return record.model_copy(update={"sentences": [heading, *record.sentences[1:]]})

    judged = [with_heading(answer("nrww", f"a{i}")) for i in range(6)]
    gold = by_id(*(answer("?rww" if i % 2 else "?rrw", f"a{i}") for i in range(6)))
    sums = topic_sums(judged, gold, {}, "random")
    assert dict(zip(FIELDS, sums["a0"], strict=True))["known"] == 1
    assert dict(zip(FIELDS, sums["a0"], strict=True))["sentences"] == 3
    found = powered(sums)
    assert not isinstance(found, str)
    assert found.figures[ALL].value == pytest.approx(9 / 24)
    assert found.figures[PRECISION].value == pytest.approx(9 / 18)
    labelled = by_id(*(answer("n" + "rww", f"a{i}") for i in range(6)))
    with_gold = powered(topic_sums(judged, labelled, {}, "random"))
    assert not isinstance(with_gold, str)
    assert with_gold.gold_sentences == 18, "gold on headings says nothing that is not known"


@pytest.mark.parametrize("design", ["sentences", "topics"])
def test_the_interval_of_a_difference_holds_the_truth(design: str) -> None:
    """After is as true as before, and the judge has become one of errors: the plain difference sees progress."""
    rng = np.random.default_rng(3)
    draws, held, plain = 300, dict.fromkeys(FIGURES, 0), []
    for _ in range(draws):
        (before, exact), (after, judged) = (world(rng, 0.2) for _ in range(2))
        old = sums_of(before, before, chosen(rng, design, exact))
        new = sums_of(after, judged, chosen(rng, design, judged))
        plain.append((judged == 0).mean() - (before == 0).mean())
        difference = compare_powered(old, new).difference
        assert difference is not None
        for name, estimate in difference.items():
            held[name] += estimate.low <= 0 <= estimate.high
    assert min(held.values()) / draws >= 0.93
    assert np.mean(plain) == pytest.approx(0.07, abs=0.01)


def test_without_clusters_the_figures_are_those_of_ppi_plus_plus() -> None:
    """arXiv 2311.01453, example of the mean: theta = mean y + lam (mean f of the rest - mean f of gold),
    lam = cov(y, f) / ((1 + n / N) var f), variance var(y - lam f) / n + lam^2 var(f) / N."""
    rng = np.random.default_rng(5)
    right = rng.random(5000) < 0.6
    said = np.where(rng.random(5000) < 0.25, rng.random(5000) < 0.8, right)
    gold = np.arange(5000) < 400
    chance = np.where(gold, 0.08, 0.0)[:, None]
    found = powered(sums_of(np.where(right, 0, 1)[:, None], np.where(said, 0, 1)[:, None], chance))
    assert not isinstance(found, str)
    y, f, rest = right[gold].astype(float), said[gold].astype(float), said[~gold].astype(float)
    n, more = len(y), len(rest)
    lam = np.cov(y, f)[0, 1] / ((1 + n / more) * said.var())
    value = y.mean() + lam * (rest.mean() - f.mean())
    error = np.sqrt((y - lam * f).var() / n + lam**2 * said.var() / more)
    estimate = found.figures[ALL]
    assert estimate.value == pytest.approx(value, abs=1e-3)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.966 * np.hypot(error, 1 / n), rel=0.01)
    # the judge's mean is over all sentences here, over those without gold there: lam (mean of all - mean of gold)
    assert found.weight_of_judge[ALL] == pytest.approx(lam * (1 + n / more), rel=0.05)


def test_a_judge_who_knows_much_shortens_the_interval() -> None:
    rng = np.random.default_rng(1)
    widths: dict[str, list[float]] = {"good": [], "blind": []}
    for _ in range(40):
        truth, judged = world(rng, 0.2)
        chance = chosen(rng, "sentences", judged)
        for name, labels in (("good", judged), ("blind", rng.permutation(judged.ravel()).reshape(judged.shape))):
            found = powered(sums_of(truth, labels, chance))
            assert not isinstance(found, str)
            widths[name].append(found.figures[ALL].high - found.figures[ALL].low)
    assert np.mean(widths["good"]) < 0.75 * np.mean(widths["blind"])
    # a blind judge costs nothing: the interval is that of a share of 100 sentences of topics that differ
    assert np.mean(widths["blind"]) == pytest.approx(2 * 1.98 * np.sqrt(0.25 / 100), rel=0.15)


def test_errors_that_the_sample_does_not_show_are_reckoned_with() -> None:
    """30 gold sentences without an error do not show that there are none: at most about one in ten is."""
    sums = {str(i): np.array([10, 5, 5, 1, 1, 1, i % 2, 1 - i % 2, i % 2, 1 - i % 2, 0.0]) for i in range(30)}
    found = powered(sums)
    assert not isinstance(found, str)
    assert found.figures[ALL].value == pytest.approx(0.5)
    assert 0.06 < found.figures[ALL].high - 0.5 < 0.1


def test_gold_that_cannot_tell_the_divisor_from_zero_says_nothing() -> None:
    judged = [answer("nnnn", f"a{i}") for i in range(6)]
    gold = by_id(answer("rnnn", "a0"), *(answer("nnnn", f"a{i}") for i in range(1, 6)))
    found = powered(topic_sums(judged, gold, {}, "random"))
    assert not isinstance(found, str)
    assert (found.figures[PRECISION].low, found.figures[PRECISION].high) == (0.0, 1.0)
    nothing = powered(topic_sums(judged, by_id(*judged), {}, "random"))
    assert not isinstance(nothing, str)
    assert str(nothing.figures[PRECISION]) == "-"


def test_gold_must_say_how_it_was_drawn() -> None:
    silent, said = by_id(answer("rw", "a")), by_id(answer("rwr", "a", "55-"), answer("w", "b", "2"))
    assert "does not say how its sentences were drawn" in (check_drawn(silent, "recorded", "g.jsonl") or "")
    assert check_drawn(silent, "random", "g.jsonl") is None
    assert check_drawn(said, "recorded", "g.jsonl") is None
    with pytest.raises(UserError, match=r"g\.jsonl records different probabilities"):
        check_drawn(said, "random", "g.jsonl")
    one = powered(topic_sums([answer("rw", "a")], by_id(answer("rw", "a")), {}, "random"))
    assert isinstance(one, str)
    assert "at least 2" in one


def test_a_difference_needs_gold_on_both_sides_and_is_over_the_topics_of_both() -> None:
    before = [answer("rw", f"a{i}") for i in range(4)]
    after = [answer("rr", f"b{i}", prompt_id=f"a{i}") for i in range(3)]
    gold = by_id(*(answer("rw", f"a{i}") for i in range(4)), *(answer("rr", f"b{i}") for i in range(3)))
    sums = [topic_sums(file, gold, {}, "random") for file in (before, after)]
    found = compare_powered(*sums)
    assert not isinstance(found.before, str) and not isinstance(found.after, str)
    assert (found.before.gold_topics, found.after.gold_topics) == (3, 3)
    assert found.difference is not None
    assert found.difference[ALL].value == pytest.approx(0.5)
    one_side = compare_powered(sums[0], topic_sums(after, {}, {}, "random"))
    assert isinstance(one_side.after, str) and one_side.difference is None and not isinstance(one_side.before, str)
