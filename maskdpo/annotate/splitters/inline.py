"""Emphasis, code and addresses inside prose: sentencex gets a copy in which they do no harm."""

import re

_FILLER = "x"
_OPAQUE = re.compile(r"(?P<tick>`+)[^`]+(?P=tick)|\b(?:https?://|www\.)[^\s<>\"“”，。；！？（）、]+|\]\([^()\s]*\)")
_TRAILING = ".,;:!?)]}'*_"
_LEADING_DOT = re.compile(r"(?<![\w.)\]}])\.(?=\w)")
_CLOSERS = re.compile(r"([.!?。！？…]+)([*_]+|\s?[\U0001F600-\U0001F64F\uFE0F❤]+)(?=[\s\[]|$)")
_ELISION = re.compile(r"(?<!\w)'(?=(?:\d0s|[Tt](?:is|was|il)|[Ee]m|[Cc]ause)\b)")
_FEET = re.compile(r"(?<=\d)['\"](?=\d|\s)")


def plain_copy(prose: str) -> str:
    """A copy of the same length, each sentence end where it belongs.

    Addresses and inline code become letters, for their full stops end nothing. A full stop before the
    closers of emphasis changes places with them, for the sentence ends behind them: "**Stop.** Go" ends
    behind "**".
    """
    if "`" in prose or "://" in prose or "www." in prose or "](" in prose:
        prose = _OPAQUE.sub(_fill_opaque, prose)
    if "." in prose:
        prose = _LEADING_DOT.sub(_FILLER, prose)
    if "'" in prose or '"' in prose:
        prose = _FEET.sub(_FILLER, _ELISION.sub(_FILLER, prose))
    if "*" in prose or "_" in prose or not prose.isascii():
        prose = _CLOSERS.sub(lambda found: _FILLER * len(found[2]) + found[1], prose)
    return prose


def _fill_opaque(found: re.Match[str]) -> str:
    whole = found[0]
    if whole[0] in "`]":
        return _FILLER * len(whole)
    address = whole.rstrip(_TRAILING)  # a full stop after an address ends the sentence
    return _FILLER * len(address) + whole[len(address) :]
