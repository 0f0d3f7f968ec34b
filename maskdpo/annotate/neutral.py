"""Judged text, made harmless for the prompt of a judge."""

import re
from collections.abc import Iterable

_DELIMITER_NAMES = "reference|question|answer|sentences?"
_CONTROL_TOKENS = (
    "start_of_turn|end_of_turn|bos|eos|s|sop|eop|eos_token|im_start|im_end|unused_token_\\d+|think|system_prompt|sys"
)
_GAP = r"[\s\u200b-\u200f\u2060\ufeff]*"
_DELIMITER = re.compile(
    rf"<(?={_GAP}(?:/{_GAP})?(?:{_DELIMITER_NAMES})\b|/?(?:{_CONTROL_TOKENS})>|[|｜])|(?<=[|｜])>"
    rf"|\[(?=/?(?:INST|{_CONTROL_TOKENS})\])",
    re.IGNORECASE,
)
_LOOK_ALIKE = {"<": "‹", ">": "›", "[": "［"}


def neutralise(text: str, words: Iterable[str] = ()) -> str:
    """Replace brackets of judged text by look-alikes where the text could mislead the judge; everything else stays.

    Judged text is untrusted: it must neither close the delimiters of the prompt, nor write the control tokens of a chat
    template, nor state a verdict in the brackets of the protocol (``words``), which a judge might only repeat.
    """
    text = _DELIMITER.sub(lambda match: _LOOK_ALIKE[match.group()], text)
    for word in words:
        if word[0] == "<":
            text = re.sub(re.escape(word), lambda match: f"‹{match.group()[1:]}", text, flags=re.IGNORECASE)
    return text
