"""The figures of the card, counted while the data are written."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from maskdpo.schemas import SIDES, Annotation, JudgeInfo, Label, Pair, Prompt, Side, Status

BINS = 10
BAR = 40
SHOWN_TEXT = 300
"""Characters of a text in the sample row."""


@dataclass
class Figures:
    """Counts. Memory grows with the topics, and with distinct models, languages, judges and scores."""

    languages: Counter[str] = field(default_factory=Counter)
    """Prompts by language, where they name it."""
    topics: set[str] = field(default_factory=set)
    labels: dict[tuple[str, str], Counter[Label]] = field(default_factory=dict)
    """Sentences by (language, model) and label."""
    statuses: dict[tuple[str, str], Counter[Status]] = field(default_factory=dict)
    """The same sentences by status."""
    judges: Counter[JudgeInfo | None] = field(default_factory=Counter)
    """Answers by judge; None: labelled by people."""
    samplings: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Answers by model and sampling options."""
    scores: dict[Side, Counter[float]] = field(default_factory=lambda: {side: Counter() for side in SIDES})
    row: dict[str, Any] | None = None
    """The first pair, long texts cut."""

    def add_prompt(self, prompt: Prompt) -> None:
        self.topics.add(prompt.topic_or_id)
        if prompt.language:
            self.languages[prompt.language] += 1

    def add_annotation(self, answer: Annotation, language: str | None) -> None:
        key = (language or "not said", answer.model or "not said")
        self.labels.setdefault(key, Counter()).update(s.label for s in answer.sentences if s.label)
        self.statuses.setdefault(key, Counter()).update(s.status for s in answer.sentences)
        self.judges[answer.judge] += 1
        self.samplings[key[1], json.dumps(answer.sampling, ensure_ascii=False) if answer.sampling else "not said"] += 1

    def add_pair(self, pair: Pair) -> None:
        for side, score in (("chosen", pair.chosen_score), ("rejected", pair.rejected_score)):
            if score is not None:
                self.scores[side][score] += 1  # type: ignore[index]
        if self.row is None:
            self.row = _cut(pair.model_dump(mode="json"))

    def sentences(self) -> int:
        return sum(counts.total() for counts in self.statuses.values())

    def not_judged(self) -> Counter[Status]:
        """Sentences without a label, by status."""
        total: Counter[Status] = sum(self.statuses.values(), Counter())
        del total[Status.OK]
        return total


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= SHOWN_TEXT else value[:SHOWN_TEXT] + " ..."
    if isinstance(value, dict):
        return {key: _cut(part) for key, part in value.items()}
    return [_cut(part) for part in value] if isinstance(value, list) else value


def histogram(scores: dict[Side, Counter[float]]) -> list[str]:
    """Lines of text per bin: its range, the number of chosen and of rejected answers in it, and a bar for each."""
    values = [score for counts in scores.values() for score in counts]
    if not values:
        return []
    low, high = min(0.0, *values), max(1.0, *values)
    bins = {side: [0] * BINS for side in scores}
    for side, counts in scores.items():
        for score, number in counts.items():
            # 0.3 * 10 is 2.9999999999999996; the greatest score is in the last bin
            bins[side][min(BINS - 1, int((score - low) / (high - low) * BINS + 1e-6))] += number
    most = max(max(numbers) for numbers in bins.values())
    edges = [low + (high - low) * i / BINS for i in range(BINS + 1)]
    names = [f"{edges[i]:.4g} to {edges[i + 1]:.4g}" for i in range(BINS)]
    width = max(map(len, names))
    lines = []
    for i, name in enumerate(names):
        for side in scores:
            number = bins[side][i]
            shown = name if side == "chosen" else ""
            lines.append(f"{shown:{width}}  {side:8} {number:8,} {'#' * round(BAR * number / most)}".rstrip())
    return lines
