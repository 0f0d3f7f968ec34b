"""NLTK's Punkt inside Markdown blocks: installed models, or one that is trained here.

Punkt learns from raw text which words are abbreviations. Where its models are not installed, it is
trained on a sample of the answers, or, without a sample, on each answer alone; the name of the splitter tells
which.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from maskdpo.extras import require
from maskdpo.schemas.language import primary
from maskdpo.schemas.records import Span
from maskdpo.text.splitters.base import VERSION, BlockSplitter, Cutter, Splitter

# Punkt ends sentences at . ! ? only, and before white space, which Chinese and Japanese do not have.
_OTHER_END = re.compile(r"[。！？…]+[”’」』）》】]*|[؟।۔॥]+")
_MODELS = {
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "es": "spanish",
    "et": "estonian",
    "fi": "finnish",
    "fr": "french",
    "it": "italian",
    "ml": "malayalam",
    "nb": "norwegian",
    "nl": "dutch",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ru": "russian",
    "sl": "slovene",
    "sv": "swedish",
    "tr": "turkish",
}
"""NLTK's models by language; other languages are cut by the English one."""


def nltk_splitter(sample: Sequence[str] = ()) -> Splitter:
    """Punkt: the installed models (``installed``), trained on a sample (``sample-HASH``), or on each text (``self``).

    Args:
        sample: texts to train on; with a sample the installed model is not used.

    Raises:
        UserError: NLTK is not installed.
    """
    punkt = require("nltk.tokenize.punkt", install="maskdpo[nltk]", purpose="the splitter nltk")
    if sample:
        digest = hashlib.sha256("\0".join(sample).encode("utf-8", "surrogatepass")).hexdigest()[:8]
        trained = punkt.PunktSentenceTokenizer("\n\n".join(sample))
        return BlockSplitter(f"nltk-{VERSION}:sample-{digest}", _cutter(lambda _: trained))
    if _installed_model("en") is None:
        return SelfTrained()
    return BlockSplitter(f"nltk-{VERSION}:installed", _cutter(_installed_model))


@dataclass(frozen=True, slots=True)
class SelfTrained:
    """Punkt, trained on each text before it is split."""

    name: str = f"nltk-{VERSION}:self"

    def split(self, text: str, language: str) -> list[Span]:
        punkt = require("nltk.tokenize.punkt", install="maskdpo[nltk]", purpose="the splitter nltk")
        trained = punkt.PunktSentenceTokenizer(text)
        return BlockSplitter(self.name, _cutter(lambda _: trained)).split(text, language)


@cache
def _installed_model(language: str) -> Any:
    """NLTK's model of a language, else of English; None where NLTK has no models."""
    punkt = require("nltk.tokenize.punkt", install="maskdpo[nltk]", purpose="the splitter nltk")
    for name in (_MODELS.get(language, "english"), "english"):
        try:
            return punkt.PunktTokenizer(name)
        except LookupError:
            continue
    return None


def _cutter(model: Callable[[str], Any]) -> Cutter:
    def cut(prose: str, language: str) -> list[int]:
        ends = {end for _, end in model(primary(language)).span_tokenize(prose)}
        return sorted(ends | {found.end() for found in _OTHER_END.finditer(prose)})

    return cut
