"""What pairing needs to know of an answer, without its text."""

import unicodedata
from typing import NamedTuple

from maskdpo.schemas import Counts


class Candidate(NamedTuple):
    """An answer that passed the filters of answers."""

    id: str
    prompt_id: str
    line: int
    """Where in the file, counted from 1."""
    score: float
    counts: Counts
    """Its sentences by group."""
    characters: int
    text_hash: bytes
    """Of the normalised text."""
    raw: bool
    """Sampled with ``--raw``."""


def normalised(text: str) -> str:
    """The text as far as it matters for being equal: without case, forms of a character, and kinds of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
