"""``maskdpo build-pairs``: from labelled answers to preference pairs. What is dropped is counted by its reason."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from maskdpo.dataset.score import right_share
from maskdpo.errors import InputError, UserError
from maskdpo.io import read_answers, read_prompts, refuse_overwriting, write_records
from maskdpo.runs import Run, meta_file
from maskdpo.schemas import SIDES, Annotation, Group, Message, Pair, PairSentence, Prompt, Side, group_of

Split = Literal["train", "test"]


class Reject(StrEnum):
    """Why a prompt gave no pair."""

    TOO_FEW = "fewer than two scored answers"
    SAME_TEXT = "the best and the worst answer have the same text"
    MARGIN = "the scores are closer than --min-margin"
    NO_RIGHT = "the better answer has no right sentence to learn"
    NO_WRONG = "the worse answer has no wrong sentence to unlearn"
    FORMS = "one answer was sampled with --raw, the other without"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What pairing needs to know of an answer, without its text."""

    id: str
    prompt_id: str
    text_hash: bytes
    score: float
    right: int
    wrong: int
    raw: bool

    @classmethod
    def of(cls, annotation: Annotation) -> "Candidate | None":
        """None where no sentence was judged: such an answer has no score."""
        counts = annotation.counts
        score = right_share(counts)
        if score is None:
            return None
        text_hash = hashlib.blake2b(" ".join(annotation.response.split()).encode(), digest_size=16).digest()
        raw = bool((annotation.sampling or {}).get("raw", False))
        return cls(annotation.id, annotation.prompt_id, text_hash, score, counts.right, counts.wrong, raw)


Chosen = tuple[Candidate, Candidate]
"""The better and the worse answer."""

Strategy = Callable[[list[Candidate]], list[Chosen]]


def best_worst(candidates: list[Candidate]) -> list[Chosen]:
    """The paper's rule: the most and the least factual answer of a prompt.

    Ties go to more right (more wrong) sentences, then to the id, so that the order of the input does not matter.
    """
    best = min(candidates, key=lambda c: (-c.score, -c.right, c.id))
    worst = min(candidates, key=lambda c: (c.score, -c.wrong, c.id))
    return [(best, worst)]


STRATEGIES: dict[str, Strategy] = {"best-worst": best_worst}
"""To add a strategy: a function and a line here."""


@dataclass
class PairStats:
    """What a run of ``build-pairs`` did."""

    prompts: int = 0
    answers: int = 0
    unscored: int = 0
    """Answers none of whose sentences was judged."""
    pairs: Counter[Split] = field(default_factory=Counter)
    rejected: Counter[Reject] = field(default_factory=Counter)
    margin_sum: float = 0.0
    labels: dict[Side, Counter[Group]] = field(default_factory=lambda: {"chosen": Counter(), "rejected": Counter()})
    characters: Counter[Side] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.pairs.total()


def build_pairs(
    prompts_file: Path,
    annotations_file: Path,
    out: Path,
    *,
    strategy: str = "best-worst",
    min_margin: float = 0.1,
    test_size: float = 0.1,
    seed: int = 0,
) -> PairStats:
    """Pair the answers of every prompt; write ``out`` and, for held-out topics, ``test_file(out)``, both atomically.

    Args:
        min_margin: least difference of the two scores (right / judged sentences).
        test_size: share of the topics whose pairs go to the test file; a topic is never split.
    """
    refuse_overwriting(out, prompts_file, annotations_file)
    refuse_overwriting(test_file(out), prompts_file, annotations_file)
    if strategy not in STRATEGIES:
        raise UserError(f"unknown strategy {strategy!r}; known: {', '.join(STRATEGIES)}")
    prompts = read_prompts(prompts_file)
    by_prompt: dict[str, list[Candidate]] = {}
    stats = PairStats()
    for annotation in read_answers(annotations_file, Annotation, prompts):
        stats.answers += 1
        candidate = Candidate.of(annotation)
        stats.unscored += candidate is None
        by_prompt.setdefault(annotation.prompt_id, []).extend([candidate] if candidate else [])
    stats.prompts = len(by_prompt)
    wanted: list[Chosen] = []
    for prompt_id in sorted(by_prompt):
        wanted += _accepted(by_prompt[prompt_id], STRATEGIES[strategy], min_margin, stats.rejected)
    texts = _texts(annotations_file, prompts, {c.id for pair in wanted for c in pair})
    splits: dict[Split, list[Pair]] = {"train": [], "test": []}
    for better, worse in wanted:
        pair = _pair(prompts[better.prompt_id], better, worse, texts)
        split = split_of(pair.topic, test_size, seed)
        splits[split].append(pair)
        _count(stats, split, pair)
    if not stats.total:
        reasons = "; ".join(f"{number}: {reason.value}" for reason, number in stats.rejected.most_common())
        raise InputError(
            f"no pair could be built ({reasons or 'no answer has a judged sentence'})", path=annotations_file
        )
    if not splits["train"]:
        raise UserError(f"all {stats.total} pairs fell to the test split; lower --test-size, or bring more topics")
    options = {"strategy": strategy, "min_margin": min_margin, "test_size": test_size, "seed": seed}
    _write(out, splits, options, {"prompts": prompts_file, "annotations": annotations_file}, stats)
    return stats


def test_file(out: Path) -> Path:
    """Where the pairs of held-out topics go: ``pairs.jsonl`` -> ``pairs.test.jsonl``."""
    return out.with_name(f"{out.stem}.test{out.suffix}")


def split_of(topic: str, test_size: float, seed: int) -> Split:
    """The split of a topic: by its hash alone, so that growing the data moves no topic across."""
    digest = hashlib.sha256(f"{seed}\0{topic}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") / 2**64 < test_size else "train"


def _accepted(
    candidates: list[Candidate], strategy: Strategy, min_margin: float, rejected: Counter[Reject]
) -> list[Chosen]:
    if len(candidates) < 2:
        rejected[Reject.TOO_FEW] += 1
        return []
    accepted = []
    for better, worse in strategy(candidates):
        reason = _problem(better, worse, min_margin)
        if reason is None:
            accepted.append((better, worse))
        else:
            rejected[reason] += 1
    return accepted


def _problem(better: Candidate, worse: Candidate, min_margin: float) -> Reject | None:
    if better.id == worse.id:
        return Reject.MARGIN  # all answers are alike in score and numbers
    if better.text_hash == worse.text_hash:
        return Reject.SAME_TEXT
    if round(better.score - worse.score, 9) < min_margin:  # 3/5 - 1/2 is 0.1, but not in floats
        return Reject.MARGIN
    if not better.right:
        return Reject.NO_RIGHT
    if not worse.wrong:
        return Reject.NO_WRONG
    return Reject.FORMS if better.raw != worse.raw else None


def _texts(file: Path, prompts: dict[str, Prompt], wanted: set[str]) -> dict[str, Annotation]:
    """Second pass: the full records of the answers that made it into a pair."""
    return {a.id: a for a in read_answers(file, Annotation, prompts) if a.id in wanted}


def _pair(prompt: Prompt, better: Candidate, worse: Candidate, texts: dict[str, Annotation]) -> Pair:
    chosen, rejected = texts[better.id], texts[worse.id]
    shown: str | list[Message]
    if isinstance(prompt.prompt, str) and not better.raw:
        shown = [Message(role="user", content=prompt.prompt)]
    else:
        shown = prompt.prompt
    as_answer: Callable[[Annotation], str | list[Message]] = (
        (lambda a: a.response)
        if isinstance(shown, str)
        else (lambda a: [Message(role="assistant", content=a.response)])
    )
    return Pair(
        id=f"{better.id}|{worse.id}",
        prompt_id=prompt.id,
        topic=prompt.topic_or_id,
        prompt=shown,
        chosen=as_answer(chosen),
        rejected=as_answer(rejected),
        chosen_sentences=_sentences(chosen),
        rejected_sentences=_sentences(rejected),
        chosen_score=round(better.score, 6),
        rejected_score=round(worse.score, 6),
        chosen_finish_reason=chosen.finish_reason,
        rejected_finish_reason=rejected.finish_reason,
    )


def _sentences(annotation: Annotation) -> list[PairSentence]:
    return [
        PairSentence(start=s.start, end=s.end, label=s.label, confidence=s.confidence) for s in annotation.sentences
    ]


def _count(stats: PairStats, split: Split, pair: Pair) -> None:
    stats.pairs[split] += 1
    stats.margin_sum += (pair.chosen_score or 0.0) - (pair.rejected_score or 0.0)
    for side in SIDES:
        stats.characters[side] += len(pair.response(side))
        for sentence in pair.sentences(side):
            stats.labels[side][group_of(sentence.label)] += 1


def _write(
    out: Path,
    splits: dict[Split, list[Pair]],
    options: dict[str, object],
    inputs: dict[str, Path],
    stats: PairStats,
) -> None:
    """Both files and the record of the run; pairs are made anew each time, so an earlier output is replaced."""
    if meta_file(out).exists():
        meta_file(out).unlink()
    run = Run(meta_file(out), "build-pairs", options, inputs, restart="")
    write_records(out, splits["train"])
    if splits["test"]:
        write_records(test_file(out), splits["test"])
    else:
        test_file(out).unlink(missing_ok=True)
    rejected = {reason.name.lower(): number for reason, number in stats.rejected.items()}
    run.finish(
        {
            "train": stats.pairs["train"],
            "test": stats.pairs["test"],
            "rejected": rejected,
            "answers": stats.answers,
        }
    )
