"""What pairing reads of an answer, without its text."""

import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

from maskdpo.schemas import Counts, Response


class Candidate(NamedTuple):
    """An answer that passed the filters of answers."""

    id: str
    prompt_id: str
    path: Path
    """The file, by the name that errors have."""
    line: int
    """Line of the file, counted from 1."""
    score: float
    counts: Counts
    """Sentences per group."""
    characters: int
    text_hash: bytes
    """Hash of the normalised text."""
    raw: bool
    """Sampled with ``--raw``."""
    template: str = ""
    """``template_settings`` as JSON: only answers to exactly the same prompt make a pair."""
    cut_off: bool = False
    """At the token limit."""
    fragment: bool = False
    """Ends in a torn sentence, which does not train and is in no count."""


def template_settings(answer: Response) -> dict[str, Any]:
    """The fields of a pair that say how the prompt of its answers was rendered."""
    sampling = answer.sampling or {}
    return {name: sampling.get(name) for name in ("template_options", "prompt_date")}


def normalised(text: str) -> str:
    """The text without differences of case, of Unicode forms and of white space, to compare texts."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
