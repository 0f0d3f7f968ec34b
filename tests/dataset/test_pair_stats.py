"""Statistics of a run: deciles, histograms, counters."""

from collections import Counter
from pathlib import Path

import pytest

from maskdpo.dataset.candidates import Candidate
from maskdpo.dataset.filters import DroppedPair, NoPair
from maskdpo.dataset.stats import PairStats, by_name, distribution
from maskdpo.schemas import Counts, Label, Pair, PairSentence


def test_deciles_are_values_by_rank() -> None:
    spread = distribution([float(value) for value in (5, 1, 3, 2, 4, 6, 10, 9, 8, 7, 0)])
    assert spread == {"mean": 5.0, "deciles": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}
    assert distribution([0.25]) == {"mean": 0.25, "deciles": [0.25] * 11}
    assert distribution([]) == {"mean": None, "deciles": []}


def rows(stats: PairStats, who: str) -> dict[tuple[float, float], int]:
    return {(row["from"], row["to"]): row[who] for row in stats.histogram() if row[who]}


def test_a_score_on_an_edge_belongs_to_the_bin_above_and_one_to_the_last() -> None:
    stats = PairStats()
    for score in (0.0, 0.099, 0.1, 0.3, 0.7, 1 / 3, 0.999, 1.0):
        stats.add_score("answers", score)
    assert rows(stats, "answers") == {
        (0.0, 0.1): 2,
        (0.1, 0.2): 1,
        (0.3, 0.4): 2,
        (0.7, 0.8): 1,
        (0.9, 1.0): 2,
    }
    assert len(stats.histogram()) == 10


def test_differences_in_bins_of_one_or_of_more_where_they_spread() -> None:
    stats = PairStats(bounded=False)
    for score in (-1.5, 0.0, 2.0, 2.5):
        stats.add_score("chosen", score)
    assert rows(stats, "chosen") == {(-2, -1): 1, (0, 1): 1, (2, 3): 2}
    stats.add_score("chosen", 20.0)
    assert rows(stats, "chosen") == {(-2, 0): 1, (0, 2): 1, (2, 4): 2, (20, 22): 1}
    for score in range(-300, 300, 7):
        stats.add_score("answers", score)
    assert len(stats.histogram()) <= 12
    assert sum(rows(stats, "answers").values()) == len(range(-300, 300, 7))


GROUPS = (Label.NO_HALLUCINATION, Label.CONTRADICTORY, Label.NO_FACT, None)


def sentences(counts: Counts) -> list[PairSentence]:
    labels = [label for label, number in zip(GROUPS, counts, strict=True) for _ in range(number)]
    return [PairSentence(start=i, end=i + 1, label=label) for i, label in enumerate(labels)]


def pair_of(chosen: Candidate, rejected: Candidate) -> Pair:
    """Of answers whose sentences are one letter each."""
    return Pair(
        id="p", prompt_id="q", topic="t", prompt="?", chosen=9 * "a", rejected=9 * "b",
        chosen_sentences=sentences(chosen.counts), rejected_sentences=sentences(rejected.counts),
    )  # fmt: skip


def test_a_pair_is_counted_on_both_sides() -> None:
    stats = PairStats()
    chosen = Candidate("a", "q", Path("a.jsonl"), 1, 0.9, Counts(3, 1, 0, 1), 120, b"", False)
    rejected = Candidate("b", "q", Path("a.jsonl"), 2, 0.2, Counts(0, 2, 1, 0), 80, b"", False)
    longer = rejected._replace(characters=240, counts=Counts(1, 1))
    stats.add_pair("train", pair_of(chosen, rejected), chosen, rejected)
    stats.add_pair("test", pair_of(chosen, longer), chosen, longer)
    summary = stats.summary()
    assert summary["pairs"] == {"train": 1, "test": 1, "dropped": {}}
    assert summary["sentences_per_pair"] == {
        "chosen": {"right": 3, "wrong": 1, "no_fact": 0, "not_judged": 1},
        "rejected": {"right": 0.5, "wrong": 1.5, "no_fact": 0.5, "not_judged": 0},
    }
    assert summary["length_ratio"]["mean"] == 1.0  # 1.5 and 0.5
    assert summary["characters"]["rejected"]["mean"] == 160
    assert summary["margin"]["mean"] == pytest.approx(0.7)


def test_reasons_by_name_in_the_order_of_their_declaration() -> None:
    counts = Counter({DroppedPair.SIMILAR: 1, DroppedPair.SAME_TEXT: 2, DroppedPair.MARGIN: 0})
    assert list(by_name(counts).items()) == [("same_text", 2), ("similar", 1)]
    assert by_name(Counter()) == {}


def test_why_none_names_the_most_frequent_reason_first() -> None:
    stats = PairStats(no_pair=Counter({NoPair.TOO_FEW: 1, NoPair.EVEN: 2}))
    assert stats.drop_reasons() == (
        "2 prompts: no answer that may be chosen scores higher than one that may be rejected; "
        "1 prompt: fewer than two usable answers"
    )
