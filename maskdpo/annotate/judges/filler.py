"""Sentences without a fact to check, by rules: for judges that know supported and unsupported, and nothing else."""

import re

from maskdpo.schemas import Kind
from maskdpo.text.claims.claims import find_claims
from maskdpo.text.claims.tokens import tokenize

MOST_WORDS = 2
"""A remark ("Oh, good!") has at most so many words."""
_QUESTION = re.compile(r"[^.!?。！？]*[?？][\s\"”’)」』]*")
_TELLS = re.compile(r"\W*(did|do) you know\b", re.IGNORECASE)
"""Such a question states a fact."""


def why_filler(sentence: str, kind: Kind) -> str | None:
    """Why a sentence states no fact, or None.

    Two rules, for sentences without a name, a number or a date: the sentence is one question, or it is prose of at most
    two words, in a script with capitals. A list item ("Heavy rain") may be the answer.
    """
    tokens = tokenize(sentence)
    if any(not claim.weak for claim in find_claims(tokens, (), ())):
        return None
    if _QUESTION.fullmatch(sentence.strip()) and not _TELLS.match(sentence):
        return "a question without a name, a number or a date"
    words = sum(token.raw.strip("_")[:1].isalnum() for token in tokens)
    if kind is Kind.PROSE and words <= MOST_WORDS and not any(token.caseless for token in tokens):
        return "a remark of few words without a name, a number or a date"
    return None
