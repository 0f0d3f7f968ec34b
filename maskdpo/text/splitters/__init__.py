"""Sentence splitters. To add one: a function that makes it, in its own module, and a line in ``SPLITTERS``."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from maskdpo import registry
from maskdpo.errors import UserError
from maskdpo.text.splitters.base import BlockSplitter, Splitter
from maskdpo.text.splitters.markdown import markdown_splitter
from maskdpo.text.splitters.nltk_splitter import nltk_splitter
from maskdpo.text.splitters.spacy_splitter import spacy_splitter

__all__ = ["SPLITTERS", "BlockSplitter", "Splitter", "get_splitter"]


class SpacyOptions(BaseModel):
    """Of the splitter ``spacy``."""

    pipeline: str = ""
    """An installed pipeline such as ``en_core_web_sm``; without one spaCy's rules are used."""


def _spacy(options: SpacyOptions) -> Splitter:
    return spacy_splitter(options.pipeline)


def _nltk(sample: Callable[[], Sequence[str]]) -> Splitter:
    splitter = nltk_splitter()
    if not splitter.name.endswith(":self"):
        return splitter
    return nltk_splitter(sample())  # no model is installed, and one text is too little to learn abbreviations from


SPLITTERS: registry.Registry[Callable[..., Splitter]] = registry.Registry(
    "splitter", {"markdown": markdown_splitter, "spacy": _spacy, "nltk": _nltk}, group="maskdpo.splitters"
)
"""A splitter's factory may ask for ``options`` of its own, and for ``sample``: a function that reads the first of the
texts to be split."""


def get_splitter(
    name: str, sample: Callable[[], Sequence[str]] = tuple, options: Mapping[str, Any] = MappingProxyType({})
) -> Splitter:
    """The splitter called ``name``.

    Args:
        name: ``markdown``, ``spacy``, ``spacy:PIPELINE``, ``nltk``, or one of your own.
        sample: reads texts like those to be split, for splitters that learn (``nltk``).
        options: for the splitter itself.

    Raises:
        UserError: there is no such splitter, or what it needs is not installed.
    """
    if name.startswith("spacy:") and name != "spacy:":
        name, options = "spacy", {**options, "pipeline": name.removeprefix("spacy:")}
    splitter: Splitter = registry.make("splitter", name, SPLITTERS[name], options, sample=sample)
    if not hasattr(splitter, "split") or not hasattr(splitter, "name"):
        raise UserError(f"`splitter` {name}: {type(splitter).__name__} is no splitter: it needs 'name' and 'split'")
    return splitter
