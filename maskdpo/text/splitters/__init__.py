"""Sentence splitters. To add one: a function that makes it, in its own module, and a line in ``_MAKERS``."""

from collections.abc import Callable, Sequence

from maskdpo.errors import UserError
from maskdpo.text.splitters.base import BlockSplitter, Splitter
from maskdpo.text.splitters.markdown import markdown_splitter
from maskdpo.text.splitters.nltk_splitter import nltk_splitter
from maskdpo.text.splitters.spacy_splitter import spacy_splitter

__all__ = ["BlockSplitter", "Splitter", "get_splitter"]

# Each takes what follows the colon of the name ("" if nothing does) and the sample.
_MAKERS: dict[str, Callable[[str, Sequence[str]], Splitter]] = {
    "markdown": lambda _, sample: markdown_splitter(),
    "spacy": lambda pipeline, sample: spacy_splitter(pipeline),
    "nltk": lambda _, sample: nltk_splitter(sample),
}
_KNOWN = "markdown, spacy, spacy:PIPELINE (such as spacy:en_core_web_sm), nltk"


def get_splitter(name: str, sample: Sequence[str] = ()) -> Splitter:
    """The splitter called ``name``.

    Args:
        name: ``markdown``, ``spacy``, ``spacy:PIPELINE`` or ``nltk``.
        sample: texts like those to be split, for splitters that learn (``nltk``); the others ignore it.

    Raises:
        UserError: if there is no such splitter, or what it needs is not installed.
    """
    base, colon, rest = name.partition(":")
    takes_rest = base == "spacy" and rest != ""
    if base not in _MAKERS or (colon and not takes_rest):
        raise UserError(f"unknown splitter {name!r}; known: {_KNOWN}")
    return _MAKERS[base](rest, sample)
