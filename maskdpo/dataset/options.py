"""What decides which pairs are built."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PairOptions:
    """The options of ``build-pairs``; docs/pairs.md gives the reasons for the defaults.

    Args:
        strategy: a name out of ``strategies.STRATEGIES``.
        k: pairs a prompt at most, for ``top-bottom`` only (default ``strategies.DEFAULT_K``).
        score: a name out of ``score.SCORES``.
        confidence_weighted: a sentence counts in the score with its confidence where it has one.
        min_margin: least difference of the two scores; the better answer always scores higher.
        min_right: right sentences that a chosen answer needs.
        min_sentences: sentences that an answer needs.
        min_coverage: share of an answer's sentences that must have been judged.
        max_length_ratio: the longer answer over the shorter, in characters.
        max_similarity: two answers that are more alike than this (0 to 1) make no pair.
        max_per_prompt: pairs a prompt at most, drawn by lot.
        max_per_topic: pairs a topic at most, drawn by lot.
        test_size: share of the topics whose pairs go to the test file; a topic is never split.
        seed: of the split and of all lots.
    """

    strategy: str = "best-worst"
    k: int | None = None
    score: str = "right-of-all"
    confidence_weighted: bool = False
    min_margin: float = 0.1
    min_right: int = 1
    min_sentences: int = 1
    min_coverage: float = 0.8
    max_length_ratio: float = 4.0
    max_similarity: float = 0.95
    max_per_prompt: int | None = None
    max_per_topic: int | None = None
    test_size: float = 0.1
    seed: int = 0
