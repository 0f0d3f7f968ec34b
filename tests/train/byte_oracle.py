"""Which characters of a text each token stands for, found by walking the bytes of the tokens' own names.

It shares nothing with the package, nor with the character offsets that tokenizers report.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence

BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's names of the 256 bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


BYTE_LEVEL = _byte_level_alphabet()


def byte_level_bytes(token: str) -> bytes:
    return bytes(BYTE_LEVEL[character] for character in token)


def sentencepiece_bytes(token: str) -> bytes:
    byte = BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()


def source_of_bytes(text: str, normalise: Callable[[str], str]) -> list[tuple[int, int]]:
    """For every byte of the normalised text the characters of ``text`` that it comes from."""
    sources: list[tuple[int, int]] = []
    begin = 0
    for end in range(1, len(text) + 1):
        # a piece ends where what follows does not change what it becomes
        if normalise(text[begin:]) == normalise(text[begin:end]) + normalise(text[end:]):
            sources += [(begin, end)] * len(normalise(text[begin:end]).encode())
            begin = end
    return sources


def token_sources(
    tokens: Sequence[str], text: str, to_bytes: Callable[[str], bytes], form: str | None
) -> list[tuple[int, int]] | None:
    """The characters of ``text`` of each token, as one range; None where the tokens do not spell the text."""
    normalise: Callable[[str], str] = (lambda piece: unicodedata.normalize(form, piece)) if form else str
    sources, spelled = source_of_bytes(text, normalise), b"".join(map(to_bytes, tokens))
    if spelled != normalise(text).encode():
        return None
    found, at = [], 0
    for token in tokens:
        here = sources[at : at + len(to_bytes(token))]
        at += len(here)
        found.append((min(begin for begin, _ in here), max(end for _, end in here)))
    return found
