"""What pairing needs to know of an answer, without its text."""

import unicodedata
from typing import Any, NamedTuple

from maskdpo.schemas import Counts, Response


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
    template: str = ""
    """``template_settings`` as JSON: only answers to one and the same prompt make a pair."""


def template_settings(answer: Response) -> dict[str, Any]:
    """What a pair says of the prompt of its answers, by the names of its fields."""
    sampling = answer.sampling or {}
    return {name: sampling.get(name) for name in ("template_options", "prompt_date")}


def normalised(text: str) -> str:
    """The text as far as it matters for being equal: without case, forms of a character, and kinds of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
