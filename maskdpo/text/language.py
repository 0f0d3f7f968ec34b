"""The language of a text, for prompts that do not name it: one of the two supported languages."""

import re
from typing import Literal

_HAN = re.compile(r"[\u3400-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")


def detect_language(text: str) -> Literal["en", "zh"]:
    """``zh`` where at least a fifth of the letters are Chinese characters (each is about one word), else ``en``."""
    letters = len(_LETTER.findall(text))
    return "zh" if letters and len(_HAN.findall(text)) / letters >= 0.2 else "en"
