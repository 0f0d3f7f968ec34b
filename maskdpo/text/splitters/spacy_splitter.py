"""spaCy inside Markdown blocks: its rule-based sentencizer, or a trained pipeline by name."""

import sys
from functools import cache
from typing import Any

from maskdpo.errors import UserError
from maskdpo.extras import require
from maskdpo.schemas.language import primary
from maskdpo.text.splitters.base import VERSION, BlockSplitter

_OTHERWISE = {"und": "en", "ja": "zh", "th": "zh"}  # zh: every character is a word, where there are no spaces


def spacy_splitter(pipeline: str = "") -> BlockSplitter:
    """``spacy``: the sentencizer on a blank pipeline of the text's language; ``spacy:NAME``: that pipeline.

    Raises:
        UserError: spaCy or the pipeline is not installed, or the pipeline finds no sentences.
    """
    if not pipeline:
        _blank("en")  # a missing package is an error now, not at the first answer
        return BlockSplitter(f"spacy-{VERSION}", lambda prose, tag: _ends(_blank(primary(tag)), prose))
    nlp = _trained(pipeline)
    return BlockSplitter(f"spacy-{VERSION}:{pipeline}", lambda prose, _: _ends(nlp, prose))


def _ends(nlp: Any, prose: str) -> list[int]:
    return [sentence.end_char for sentence in nlp(prose).sents]


@cache
def _blank(language: str) -> Any:
    spacy = require("spacy", install="maskdpo[spacy]", purpose="the splitter spacy")
    try:
        nlp = spacy.blank(language)
    except ImportError:  # spaCy does not know the language, or needs a package for its words
        nlp = spacy.blank(_OTHERWISE.get(language, "xx"))
    nlp.add_pipe("sentencizer")
    nlp.max_length = sys.maxsize  # the limit is for parsers; the sentencizer needs next to no memory
    return nlp


@cache
def _trained(pipeline: str) -> Any:
    spacy = require("spacy", install="maskdpo[spacy]", purpose=f"the splitter spacy:{pipeline}")
    try:
        nlp = spacy.load(pipeline, exclude=["ner", "lemmatizer"])
    except OSError:
        raise UserError(
            f"the spaCy pipeline {pipeline!r} is not installed. Install it with: python -m spacy download {pipeline}"
        ) from None
    if not {"parser", "senter", "sentencizer"} & set(nlp.pipe_names):
        raise UserError(f"the spaCy pipeline {pipeline!r} finds no sentences: it has no parser, senter or sentencizer")
    return nlp
