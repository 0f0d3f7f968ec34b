"""What is dropped, and why. Every reason is counted; docs/pairs.md says when each filter applies."""

from enum import StrEnum

from rapidfuzz import fuzz

from maskdpo.dataset.candidates import Candidate
from maskdpo.dataset.options import PairOptions
from maskdpo.schemas import Counts


class DroppedAnswer(StrEnum):
    """Why an answer cannot be in any pair: decided before a strategy sees it, so that the next best takes its place."""

    SENTENCES = "fewer sentences than `min_sentences`"
    UNJUDGED = "no sentence was judged"
    COVERAGE = "a smaller share of sentences judged than `min_coverage`"
    NO_SCORE = "`score` says nothing of it (no right or wrong sentence)"


class NoPair(StrEnum):
    """Why a prompt gave no pair."""

    NO_ANSWERS = "no answers"
    TOO_FEW = "fewer than two usable answers"
    NO_CHOSEN = "no answer has enough right sentences to be chosen"
    NO_REJECTED = "no answer has a wrong sentence to unlearn"
    EVEN = "no answer to choose scores higher than one to reject"
    DROPPED = "all its pairs were dropped"


class DroppedPair(StrEnum):
    """Why two answers that a strategy put together are no pair."""

    SAME_TEXT = "the same text"
    FORMS = "one was sampled with `raw`, the other without"
    TEMPLATES = "their prompts differ: the chat template was told other options, or wrote another date"
    MARGIN = "scores closer than `min_margin`"
    LENGTH = "lengths further apart than `max_length_ratio`"
    PER_PROMPT = "beyond `max_per_prompt`"
    PER_TOPIC = "beyond `max_per_topic`"
    SIMILAR = "texts more alike than `max_similarity`"


def answer_problem(counts: Counts, score: float | None, options: PairOptions) -> DroppedAnswer | None:
    """What is wrong with an answer by itself."""
    sentences = sum(counts)
    if sentences < max(1, options.min_sentences):
        return DroppedAnswer.SENTENCES
    if not counts.judged:
        return DroppedAnswer.UNJUDGED
    if counts.judged / sentences < options.min_coverage:
        return DroppedAnswer.COVERAGE
    return DroppedAnswer.NO_SCORE if score is None else None


def may_be_chosen(answer: Candidate, options: PairOptions) -> bool:
    """Enough right sentences, and something that trains on the chosen side."""
    return answer.counts.right >= options.min_right and answer.counts.right + answer.counts.no_fact > 0


def may_be_rejected(answer: Candidate) -> bool:
    """Wrong sentences are all that trains on the rejected side."""
    return answer.counts.wrong > 0


def apart(better: Candidate, worse: Candidate, min_margin: float) -> bool:
    """Whether the scores differ by the margin at least."""
    return round(better.score - worse.score, 9) >= min_margin  # 3/5 - 1/2 is 0.1, but not in floats


def pair_problem(better: Candidate, worse: Candidate, options: PairOptions) -> DroppedPair | None:
    """What is wrong with two answers as a pair, as far as it shows without their texts."""
    if better.text_hash == worse.text_hash:
        return DroppedPair.SAME_TEXT
    if better.raw != worse.raw:
        return DroppedPair.FORMS
    if better.template != worse.template:
        return DroppedPair.TEMPLATES
    if not apart(better, worse, options.min_margin):
        return DroppedPair.MARGIN
    shorter, longer = sorted((better.characters, worse.characters))
    return DroppedPair.LENGTH if longer > options.max_length_ratio * shorter else None


def alike(one: str, other: str, max_similarity: float) -> bool:
    """Whether two normalised texts are more alike than allowed: 1 - edits / characters, without substitutions."""
    if max_similarity >= 1:
        return False
    return fuzz.ratio(one, other, score_cutoff=100 * max_similarity) > 100 * max_similarity
