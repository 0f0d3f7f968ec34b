"""What a run of ``build-pairs`` did: everything that was dropped by its reason, and what the pairs look like."""

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from statistics import fmean
from typing import Any, Literal, get_args

from maskdpo.console import counted
from maskdpo.dataset.candidates import Candidate
from maskdpo.dataset.draw import Split
from maskdpo.dataset.filters import DroppedAnswer, DroppedPair, NoPair
from maskdpo.schemas import SIDES, Pair, Side
from maskdpo.verdicts.mix import Mix, MixCounts

Scored = Literal["answers", "chosen", "rejected"]
"""Whose scores are counted: of all answers that passed the filters, and of the two sides of the pairs."""

MOST_BINS = 12


def _numbers() -> "array[float]":
    return array("d")


@dataclass
class PairStats:
    """Counts and distributions. Memory grows by a few numbers per pair."""

    bounded: bool = True
    """Whether scores lie between 0 and 1."""
    answers: int = 0
    gold_answers: int = 0
    """With labels of people."""
    may_be_chosen: int = 0
    may_be_rejected: int = 0
    dropped_answers: Counter[DroppedAnswer] = field(default_factory=Counter)
    prompts: int = 0
    no_pair: Counter[NoPair] = field(default_factory=Counter)
    dropped_pairs: Counter[DroppedPair] = field(default_factory=Counter)
    pairs: Counter[Split] = field(default_factory=Counter)
    topics: Counter[Split] = field(default_factory=Counter)
    pairs_per_topic: "array[float]" = field(default_factory=_numbers)
    margins: "array[float]" = field(default_factory=_numbers)
    length_ratios: "array[float]" = field(default_factory=_numbers)
    """Characters of the chosen answer / of the rejected one: about 1 where length does not tell them apart."""
    characters: "dict[Side, array[float]]" = field(default_factory=lambda: {side: _numbers() for side in SIDES})
    mixed: MixCounts = field(default_factory=MixCounts)
    """What ``mix`` is made of, and the sentences of the pairs."""
    cut_off: Counter[Side] = field(default_factory=Counter)
    """Sides of pairs that were cut off at the token limit."""
    fragments: Counter[Side] = field(default_factory=Counter)
    """Those of them that end in a torn sentence, which does not train."""
    fragments_judged: int = 0
    """Answers whose torn sentence was judged by an earlier version of maskdpo, so that it trains and counts."""
    scores: dict[Scored, Counter[int]] = field(default_factory=lambda: {who: Counter() for who in get_args(Scored)})
    """By bin: tenths of scores between 0 and 1, else whole numbers."""

    @property
    def total(self) -> int:
        return self.pairs.total()

    @property
    def mix(self) -> Mix:
        """How much the masks of Mask-DPO have to leave out, in characters, and how far the answers are apart."""
        return self.mixed.mix()

    def add_score(self, who: Scored, score: float) -> None:
        bin = min(9, math.floor(score * 10)) if self.bounded else math.floor(score)  # 1 belongs to the last tenth
        self.scores[who][bin] += 1

    def add_no_pair(self, reason: NoPair, prompts: int) -> None:
        if prompts:
            self.no_pair[reason] += prompts

    def add_topic(self, split: Split, pairs: int) -> None:
        self.topics[split] += 1
        self.pairs_per_topic.append(pairs)

    def add_pair(self, split: Split, pair: Pair, chosen: Candidate, rejected: Candidate) -> None:
        self.pairs[split] += 1
        self.mixed.add(pair)
        self.margins.append(chosen.score - rejected.score)
        self.length_ratios.append(chosen.characters / rejected.characters)
        self.add_score("chosen", chosen.score)
        self.add_score("rejected", rejected.score)
        for side, answer in zip(SIDES, (chosen, rejected), strict=True):
            self.characters[side].append(answer.characters)
            self.cut_off[side] += answer.cut_off
            self.fragments[side] += answer.fragment

    def drop_reasons(self) -> str:
        """All reasons for which answers, prompts and pairs were dropped, the most frequent ones first."""
        counts = (("answer", self.dropped_answers), ("prompt", self.no_pair), ("pair", self.dropped_pairs))
        return "; ".join(
            f"{counted(number, what)}: {reason.value}"
            for what, reasons in counts
            for reason, number in reasons.most_common()
            if number
        )

    def summary(self) -> dict[str, Any]:
        """All figures as JSON values."""
        return {
            "answers": {
                "total": self.answers,
                "with_gold": self.gold_answers,
                "dropped": by_name(self.dropped_answers),
                "may_be_chosen": self.may_be_chosen,
                "may_be_rejected": self.may_be_rejected,
            },
            "prompts": {"total": self.prompts, "without_pair": by_name(self.no_pair)},
            "pairs": {
                "train": self.pairs["train"],
                "test": self.pairs["test"],
                "dropped": by_name(self.dropped_pairs),
            },
            "topics": {"train": self.topics["train"], "test": self.topics["test"]},
            "pairs_per_topic": distribution(self.pairs_per_topic),
            "margin": distribution(self.margins),
            "length_ratio": distribution(self.length_ratios),
            "characters": {side: distribution(self.characters[side]) for side in SIDES},
            "mix": {name: value if value is None else round(value, 6) for name, value in self.mix.model_dump().items()},
            "cut_off": {side: self.cut_off[side] for side in SIDES},
            "fragments": {side: self.fragments[side] for side in SIDES},
            "sentences_per_pair": {side: self.sentences_per_pair(side) for side in SIDES},
            "scores": self.histogram(),
        }

    def sentences_per_pair(self, side: Side) -> dict[str, float]:
        counts = self.mixed.sentences[side]
        counts = counts._replace(not_judged=counts.not_judged - self.fragments[side])  # torn ones are in no count
        return {group: round(number / max(1, self.total), 6) for group, number in counts._asdict().items()}

    def histogram(self) -> list[dict[str, Any]]:
        """Counts of scores per bin [from, to); of scores between 0 and 1 the last bin also has the 1."""
        bins = set[int]().union(*self.scores.values())
        if self.bounded:
            edges, width, scale = range(10), 1, 0.1
        else:
            low, high = min(bins, default=0), max(bins, default=0)
            width = next(2**i for i in count() if (high >> i) - (low >> i) < MOST_BINS)
            edges, scale = range(low // width, high // width + 1), width
        rows: list[dict[str, Any]] = []
        for edge in edges:
            row: dict[str, Any] = {"from": round(edge * scale, 6), "to": round((edge + 1) * scale, 6)}
            for who, counts in self.scores.items():
                row[who] = sum(number for bin, number in counts.items() if bin // width == edge)
            rows.append(row)
        return rows


def by_name(reasons: Counter[Any]) -> dict[str, int]:
    """Counts by the name of the reason in JSON, in the order of declaration."""
    kind: type[Enum] | None = next((type(reason) for reason in reasons), None)
    return {reason.name.lower(): reasons[reason] for reason in kind or () if reasons[reason]}


def distribution(values: Sequence[float]) -> dict[str, Any]:
    """Mean and deciles: the least value, nine between, and the greatest. Each is one of the values (nearest rank)."""
    if not values:
        return {"mean": None, "deciles": []}
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "mean": round(fmean(ordered), 6),
        "deciles": [_tidy(ordered[round(tenth * last / 10)]) for tenth in range(11)],
    }


def _tidy(value: float) -> float:
    return int(value) if value.is_integer() else round(value, 6)
