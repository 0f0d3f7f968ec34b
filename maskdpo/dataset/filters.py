"""Filters of answers and pairs. Every reason is counted; docs/pairs.md says when each filter applies."""

from enum import StrEnum

from rapidfuzz import fuzz

from maskdpo.dataset.candidates import Candidate
from maskdpo.dataset.options import PairOptions
from maskdpo.schemas import Counts


class DroppedAnswer(StrEnum):
    """Why an answer cannot be in any pair. Such answers are dropped before a strategy chooses among the others."""

    NO_REFERENCE = "the prompt had no reference to judge it by"
    SENTENCES = "fewer sentences than `min_sentences`, torn ones not counted"
    UNJUDGED = "no sentence was judged"
    COVERAGE = "a smaller share of sentences judged than `min_coverage`"
    NO_SCORE = "`score` is undefined for the answer (no right or wrong sentence)"


class NoPair(StrEnum):
    """Why a prompt gave no pair."""

    NO_ANSWERS = "no answers"
    TOO_FEW = "fewer than two usable answers"
    NO_CHOSEN = "no answer has enough right sentences to be chosen"
    NO_REJECTED = "no answer has a wrong sentence, so none can be rejected"
    EVEN = "no answer that may be chosen scores higher than one that may be rejected"
    DROPPED = "all its pairs were dropped"


class DroppedPair(StrEnum):
    """Why two answers that a strategy proposed are no pair."""

    SAME_TEXT = "the same text"
    FORMS = "one answer was sampled with `raw`, the other without"
    TEMPLATES = "their prompts differ: the chat template was told other options, or wrote another date"
    MARGIN = "scores closer than `min_margin`"
    LENGTH = "lengths further apart than `max_length_ratio`"
    PER_PROMPT = "beyond `max_per_prompt`"
    PER_TOPIC = "beyond `max_per_topic`"
    SIMILAR = "texts more alike than `max_similarity`"


def answer_problem(counts: Counts, score: float | None, options: PairOptions) -> DroppedAnswer | None:
    """Why an answer cannot be in any pair, or None."""
    sentences = sum(counts)
    if sentences < max(1, options.min_sentences):
        return DroppedAnswer.SENTENCES
    if not counts.judged:
        return DroppedAnswer.UNJUDGED
    if counts.judged / sentences < options.min_coverage:
        return DroppedAnswer.COVERAGE
    return DroppedAnswer.NO_SCORE if score is None else None


def may_be_chosen(answer: Candidate, options: PairOptions) -> bool:
    """Whether it has enough right sentences, and any sentence that trains on the chosen side."""
    return answer.counts.right >= options.min_right and answer.counts.right + answer.counts.no_fact > 0


def may_be_rejected(answer: Candidate) -> bool:
    """Whether it has a wrong sentence: only wrong sentences train on the rejected side."""
    return answer.counts.wrong > 0


def differ_by_margin(chosen: Candidate, rejected: Candidate, min_margin: float) -> bool:
    """Whether the scores differ by at least the margin."""
    return round(chosen.score - rejected.score, 9) >= min_margin  # 3/5 - 1/2 is 0.1, but not in floats


def pair_problem(chosen: Candidate, rejected: Candidate, options: PairOptions) -> DroppedPair | None:
    """Why two answers are no pair, as far as that shows without their texts, or None."""
    if chosen.text_hash == rejected.text_hash:
        return DroppedPair.SAME_TEXT
    if chosen.raw != rejected.raw:
        return DroppedPair.FORMS
    if chosen.template != rejected.template:
        return DroppedPair.TEMPLATES
    if not differ_by_margin(chosen, rejected, options.min_margin):
        return DroppedPair.MARGIN
    shorter, longer = sorted((chosen.characters, rejected.characters))
    return DroppedPair.LENGTH if longer > options.max_length_ratio * shorter else None


def too_similar(one: str, other: str, max_similarity: float) -> bool:
    """Whether the similarity of two normalised texts, 1 - edits / characters without substitutions, is too large."""
    if max_similarity >= 1:
        return False
    return fuzz.ratio(one, other, score_cutoff=100 * max_similarity) > 100 * max_similarity
