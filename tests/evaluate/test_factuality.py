"""Figures per answer, counted by hand, and intervals that mean what they say."""

import math

import numpy as np
import pytest

from maskdpo.evaluate.factuality import (
    CLAIMS,
    FIGURES,
    PRECISION,
    RIGHT_OF_ALL,
    Comparison,
    penalised_precision,
    summarise,
    sums_by_topic,
)
from maskdpo.evaluate.factuality import compare as compare_sums
from maskdpo.evaluate.tables import of_comparison, of_summary
from maskdpo.schemas import Annotation, Counts, FinishReason, Kind, Label, Prompt, Sentence, Status

LABELS = {"r": Label.NO_HALLUCINATION, "w": Label.CONTRADICTORY, "h": Label.HALLUCINATION, "n": Label.NO_FACT}


def answer(labels: str, prompt_id: str = "p", number: int = 0, finish: FinishReason | None = "stop") -> Annotation:
    """Sentences of two characters: right, wrong, no fact, ? refused."""
    sentences = [
        Sentence(start=2 * i, end=2 * i + 2, label=LABELS[c])
        if c in LABELS
        else Sentence(start=2 * i, end=2 * i + 2, status=Status.REFUSED)
        for i, c in enumerate(labels)
    ]
    return Annotation(
        id=f"{prompt_id}-{number}",
        prompt_id=prompt_id,
        response="x." * len(labels),
        sentences=sentences,
        finish_reason=finish,
    )


def compare(before: list[Annotation], after: list[Annotation], length_penalty: int | None = None) -> Comparison | None:
    sums = (sums_by_topic(answers, length_penalty=length_penalty) for answers in (before, after))
    return compare_sums(*sums, length_penalty)


def metric(part: str) -> str:
    (name,) = [name for name in FIGURES if name.startswith(part)]
    return name


def values(*answers: Annotation) -> dict[str, float]:
    return {name: estimate.value for name, estimate in summarise(answers).figures.items()}


def test_every_figure_by_hand() -> None:
    found = values(answer("rrwn", "p"), answer("rh??", "q", finish="length"), answer("", "r"))
    assert found == pytest.approx(
        {
            metric("right sentences"): 3 / 3,
            metric("wrong sentences"): 2 / 3,
            metric("no-fact"): 1 / 3,
            metric("not judged"): 2 / 3,
            metric("right / all"): 3 / 8,
            metric("right / (right"): 3 / 5,
            metric("1 - wrong"): 1 - 2 / 6,
            metric("answers cut off"): 1 / 3,
            metric("characters"): 16 / 3,
            **dict.fromkeys(["names / answer", "numbers / answer", "dates / answer", CLAIMS], 0),
        }
    )


def test_saying_nothing_wins_one_figure_only() -> None:
    silent, honest = values(answer("nnnn")), values(answer("rrrw"))
    assert silent[metric("1 - wrong")] == 1.0 > honest[metric("1 - wrong")]
    assert silent[metric("right / all")] == 0.0 < honest[metric("right / all")]
    assert math.isnan(silent[metric("right / (right")])


def test_a_figure_without_a_denominator_is_shown_as_a_dash() -> None:
    summary = summarise([answer("?")])
    assert str(summary.figures[metric("right / (right")]) == "-"
    assert str(summary.figures[metric("1 - wrong")]) == "-"


def test_a_fragment_counts_in_no_figure() -> None:
    whole = answer("rw", finish="length")
    torn = Sentence(start=4, end=12, kind=Kind.FRAGMENT, status=Status.FRAGMENT)
    cut = whole.model_copy(update={"response": "x.x.in Paris", "sentences": [*whole.sentences, torn]})
    length = metric("characters")
    assert values(cut) == pytest.approx(values(whole) | {length: 12}, nan_ok=True)


def test_answers_cut_off_are_counted_among_those_whose_end_is_known() -> None:
    name = metric("answers cut off")
    ends: list[FinishReason | None] = ["length", "stop", "stop", None, None]
    answers = [answer("r", f"p{i}", finish=end) for i, end in enumerate(ends)]
    assert values(*answers)[name] == pytest.approx(1 / 3)
    unknown = answers[3:]
    assert str(summarise(unknown).figures[name]) == "-"
    result = compare(unknown, [answer("r", f"p{i}") for i in range(5)])
    assert result is not None
    assert (str(result.after.figures[name]), result.difference[name].signed()) == ("0.000 [0.000, 0.842]", "-")


@pytest.mark.parametrize(
    ("right", "wrong", "score"),
    [
        (2, 1, 2 / 3 * math.exp(1 - 4 / 3)),
        (1, 0, math.exp(-3)),
        (3, 1, 3 / 4),  # n = gamma: no penalty
        (5, 1, 5 / 6),
        (0, 9, 0.0),
        (0, 0, 0.0),
    ],
)
def test_the_length_penalty_by_hand(right: int, wrong: int, score: float) -> None:
    assert penalised_precision(Counts(right, wrong, no_fact=7, not_judged=2), gamma=4) == pytest.approx(score)


def test_the_length_penalty_is_a_mean_over_answers_and_silence_counts() -> None:
    answers = [answer("rrwn", "p", 0), answer("rrrrrw", "p", 1), answer("nnnnnn", "q"), answer("", "r")]
    summary = summarise(answers, length_penalty=4)
    name = "precision, length penalty 4"
    assert summary.figures[name].value == pytest.approx((2 / 3 * math.exp(-1 / 3) + 5 / 6) / 4)
    assert 0 < summary.figures[name].low < summary.figures[name].value < summary.figures[name].high < 1
    assert set(summary.figures) - {name} == set(FIGURES) == set(summarise(answers).figures)


def test_the_length_penalty_is_compared_in_pairs() -> None:
    before = [answer("rw" * (i + 1), f"p{i}") for i in range(5)]
    after = [answer("rw" * (i + 1) + "nn", f"p{i}") for i in range(4)] + [answer("rrrrr", "p4")]
    result = compare(before, after, length_penalty=2)
    assert result is not None
    estimate = result.difference["precision, length penalty 2"]
    assert estimate.value == pytest.approx((1.0 - 0.5) / 5)
    assert estimate.low < 0.0 < estimate.value < estimate.high  # only one of five topics has changed


def test_topics_are_counted() -> None:
    prompts = {name: Prompt(id=name, prompt="?", topic="t" if name != "c" else None) for name in "abc"}
    answers = [answer("rw?", "a"), answer("h", "b"), answer("n", "c")]
    summary = summarise(answers, prompts)
    assert (summary.answers, summary.topics) == (3, 2)
    assert summarise(answers).topics == 3


def test_the_interval_holds_the_value() -> None:
    rng = np.random.default_rng(0)
    answers = [answer("r" * rng.integers(0, 4) + "w" * rng.integers(0, 4), f"p{i}") for i in range(60)]
    estimate = summarise(answers).figures[metric("right / (right")]
    assert estimate.low < estimate.value < estimate.high


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, 9, size=300)
    estimate = summarise([answer("r" * n, f"p{i}") for i, n in enumerate(numbers)]).figures[metric("right sentences")]
    half = 1.96 * numbers.std() / math.sqrt(len(numbers))
    assert estimate.low == pytest.approx(numbers.mean() - half, abs=0.15 * half)
    assert estimate.high == pytest.approx(numbers.mean() + half, abs=0.15 * half)


def test_answers_of_one_topic_are_one_piece_of_evidence() -> None:
    """Every answer ten times is no more evidence than once, so the interval must not shrink."""
    rng = np.random.default_rng(2)
    labels = ["r" * rng.integers(0, 5) + "w" for _ in range(40)]
    once = summarise([answer(text, f"p{i}") for i, text in enumerate(labels)])
    often = summarise([answer(text, f"p{i}", k) for i, text in enumerate(labels) for k in range(10)])
    name = metric("right / all")
    assert often.figures[name].low == pytest.approx(once.figures[name].low)
    assert often.figures[name].high == pytest.approx(once.figures[name].high)


def test_one_topic_has_no_interval_and_no_star() -> None:
    assert str(summarise([answer("rw")]).figures[metric("right / all")]) == "0.500"
    result = compare([answer("rw")], [answer("rr")])
    assert result is not None
    assert result.difference[metric("right / all")].signed() == "+0.500"


def test_a_comparison_is_over_the_topics_that_both_have() -> None:
    before = [answer("rw", "p"), answer("rw", "q"), answer("wwww", "only before")]
    after = [answer("rr", "p"), answer("rw", "q"), answer("wwww", "only after")]
    result = compare(before, after)
    assert result is not None
    assert (result.before.topics, result.after.topics) == (2, 2)
    name = metric("right / all")
    assert (result.before.figures[name].value, result.after.figures[name].value) == (0.5, 0.75)
    assert result.difference[name].value == pytest.approx(0.25)
    assert (result.before.answers, result.after.answers) == (2, 2)
    assert compare(before[2:], after) is None


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    """Topics differ a lot, and on each the second model is a little better: the difference is certain."""
    before = [answer("r" * i + "w" * (20 - i), f"p{i}") for i in range(20)]
    after = [answer("r" * (i + 1) + "w" * (19 - i), f"p{i}") for i in range(20)]
    result = compare(before, after)
    assert result is not None
    name = metric("right / all")
    assert result.before.figures[name].high > result.after.figures[name].low
    assert 0.03 < result.difference[name].low < 0.05 < result.difference[name].high < 0.07


def said(text: str, label: Label, topic: int) -> Annotation:
    """An answer of one sentence."""
    sentence = Sentence(start=0, end=len(text), label=label)
    return Annotation(id=f"a{topic}", prompt_id=f"p{topic}", response=text, sentences=[sentence])


FACT, FILLER = "It was built in 1887 by Gustave Eiffel, with 300 workers.", "That is a lovely question to ask."


def test_names_numbers_and_dates_are_counted_without_a_judge() -> None:
    found = values(said(FACT, Label.CONTRADICTORY, 0), said(FILLER, Label.NO_HALLUCINATION, 1))
    assert found["names / answer"] == found["numbers / answer"] == found["dates / answer"] == 1 / 2
    assert found[CLAIMS] == 3 / 2


def test_a_win_by_filler_is_seen() -> None:
    before = [said(FACT, Label.CONTRADICTORY if i % 2 else Label.NO_HALLUCINATION, i) for i in range(20)]
    filler = [said(FILLER, Label.NO_HALLUCINATION, i) for i in range(20)]
    honest = [said(FACT, Label.NO_HALLUCINATION, i) for i in range(20)]
    won, fair, lost = (compare(*files) for files in ((before, filler), (before, honest), (filler, before)))
    assert won and fair and lost
    assert won.won_by_filler == [RIGHT_OF_ALL, PRECISION]
    assert fair.difference[PRECISION].low > 0
    assert fair.won_by_filler == lost.won_by_filler == []
    few = compare(before[:9], filler[:9])
    assert few and few.difference[PRECISION].low > 0 and few.difference[CLAIMS].high < 0
    assert few.won_by_filler == [], "no difference over nine topics is to be relied on"
    silent = [answer("", f"silent {i}") for i in range(30)]
    among_silent = compare(before[:9] + silent, filler[:9] + silent)
    assert among_silent and among_silent.before.topics == 39
    assert among_silent.won_by_filler == [], "the share of right sentences rests on nine of these topics"


@pytest.mark.parametrize("told", [["rrww", "rwww", "rrrw"], ["rrww"] * 6])
def test_stars_go_by_the_topics_on_which_a_difference_rests(told: list[str]) -> None:
    silent = [answer("", f"silent {i}") for i in range(40)]
    before = [answer(labels.replace("r", "w"), f"p{i}") for i, labels in enumerate(told)] + silent
    after = [answer("r" * len(labels), f"p{i}") for i, labels in enumerate(told)] + silent
    result = compare(before, after)
    assert result
    share, each = result.difference[RIGHT_OF_ALL], result.difference[metric("right sentences")]
    assert (share.topics, each.topics) == (len(told), len(told) + 40)
    table = of_comparison("a -> b", result)
    (row,) = [row for row in table.rows if row[0] == RIGHT_OF_ALL]
    assert row[-1].startswith("+1.00 [") and not row[-1].endswith("*")
    note = (
        f"Only {len(told)} topics for {RIGHT_OF_ALL}, {PRECISION}, {metric('1 - wrong')}: intervals over fewer than 10"
    )
    assert [line.startswith(note) for line in table.notes] == [True]
    assert of_summary("a", result.before).notes[0].startswith(note)
    spoken = compare(before, [answer("r" * 3, one.prompt_id) for one in after])
    assert spoken and spoken.difference[RIGHT_OF_ALL].topics == len(told), "before has so many"


def test_prompts_without_a_topic_that_share_a_reference_are_one_topic() -> None:
    judged = [answer("r", f"q{i}") for i in range(4)]
    prompts = {f"q{i}": Prompt(id=f"q{i}", prompt="?", reference=f"Text {i % 2}.") for i in range(4)}
    assert summarise(judged, prompts).topics == 2
    assert summarise(judged).topics == 4
