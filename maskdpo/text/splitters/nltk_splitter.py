"""NLTK's Punkt inside Markdown blocks: an installed model, or one that is trained here.

Punkt learns from raw text which words are abbreviations. Where its English model is not installed, it is
trained on a sample of the answers, or, without a sample, on each answer alone; the name of the splitter tells
which.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from maskdpo.extras import require
from maskdpo.schemas.records import Span
from maskdpo.text.splitters.base import VERSION, BlockSplitter, Cutter, Splitter

# Punkt ends sentences only before white space, which Chinese does not have.
_CHINESE_END = re.compile(r"[。！？…]+[”’」』）》】]*")


def nltk_splitter(sample: Sequence[str] = ()) -> Splitter:
    """Punkt: the installed model (``english``), trained on a sample (``sample-HASH``), or on each text (``self``).

    Args:
        sample: texts to train on; with a sample the installed model is not used.

    Raises:
        UserError: NLTK is not installed.
    """
    punkt = require("nltk.tokenize.punkt", install="maskdpo[nltk]", purpose="the splitter nltk")
    if sample:
        digest = hashlib.sha256("\0".join(sample).encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return BlockSplitter(
            f"nltk-{VERSION}:sample-{digest}", _cutter(punkt.PunktSentenceTokenizer("\n\n".join(sample)))
        )
    installed = _installed_model()
    return SelfTrained() if installed is None else BlockSplitter(f"nltk-{VERSION}:english", _cutter(installed))


@dataclass(frozen=True, slots=True)
class SelfTrained:
    """Punkt, trained on each text before it is split."""

    name: str = f"nltk-{VERSION}:self"

    def split(self, text: str, language: str) -> list[Span]:
        punkt = require("nltk.tokenize.punkt", install="maskdpo[nltk]", purpose="the splitter nltk")
        return BlockSplitter(self.name, _cutter(punkt.PunktSentenceTokenizer(text))).split(text, language)


@cache
def _installed_model() -> Any:
    punkt = require("nltk.tokenize.punkt", install="maskdpo[nltk]", purpose="the splitter nltk")
    try:
        return punkt.PunktTokenizer("english")
    except LookupError:
        return None


def _cutter(tokenizer: Any) -> Cutter:
    def cut(prose: str, language: str) -> list[int]:
        ends = {end for _, end in tokenizer.span_tokenize(prose)}
        return sorted(ends | {found.end() for found in _CHINESE_END.finditer(prose)})

    return cut
