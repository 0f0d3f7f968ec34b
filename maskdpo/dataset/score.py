"""How factual an answer is, as one number between 0 and 1."""

from maskdpo.schemas import Counts


def right_share(counts: Counts) -> float | None:
    """Right sentences over all judged ones; None where none was judged.

    Not ANAH's 1 - wrong/judged: that one gives its best mark to an answer that says nothing which could be checked.
    """
    return counts.right / counts.judged if counts.judged else None
