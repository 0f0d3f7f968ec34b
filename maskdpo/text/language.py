"""Which of the two supported languages a text is in, where its prompt does not say."""

import re
from typing import Literal

_HAN = re.compile(r"[\u3400-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")


def detect_language(text: str) -> Literal["en", "zh"]:
    """``zh`` where a fifth of the letters or more are Chinese characters (each is about a word), else ``en``."""
    letters = len(_LETTER.findall(text))
    return "zh" if letters and len(_HAN.findall(text)) / letters >= 0.2 else "en"
