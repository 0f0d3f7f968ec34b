"""Emphasis, code and addresses inside prose: sentencex gets a copy in which they do no harm."""

import re

_FILLER = "x"
_OPAQUE = re.compile(r"`+|\b(?:https?://|www\.)[^\s<>\"“”，。；！？（）、]+|\]\([^()\s]*\)")
_TICKS = re.compile("`+")
_MOST_TICKS = 8  # that anybody opens code with
_TRAILING = ".,;:!?)]}'*_"
_LEADING_DOT = re.compile(r"(?<![\w.)\]}])\.(?=\w)")
# A run is looked at once, from its start: from each of its characters it would take time with their square.
_CLOSERS = re.compile(r"(?<![.!?。！？…])([.!?。！？…]+)([*_]+|\s?[\U0001F600-\U0001F64F\uFE0F❤]+)(?=[\s\[]|$)")
_ELISION = re.compile(r"(?<!\w)'(?=(?:\d0s|[Tt](?:is|was|il)|[Ee]m|[Cc]ause)\b)")
_FEET = re.compile(r"(?<=\d)['\"](?=\d|\s)")


def plain_copy(prose: str) -> str:
    """A copy of the same length, each sentence end where it belongs.

    Addresses and inline code become letters, for their full stops end nothing. A full stop before the
    closers of emphasis changes places with them, for the sentence ends behind them: "**Stop.** Go" ends
    behind "**".
    """
    if "`" in prose or "://" in prose or "www." in prose or "](" in prose:
        prose = _fill_opaque(prose)
    if "." in prose:
        prose = _LEADING_DOT.sub(_FILLER, prose)
    if "'" in prose or '"' in prose:
        prose = _FEET.sub(_FILLER, _ELISION.sub(_FILLER, prose))
    if "*" in prose or "_" in prose or not prose.isascii():
        prose = _CLOSERS.sub(lambda found: _FILLER * len(found[2]) + found[1], prose)
    return prose


def _fill_opaque(prose: str) -> str:
    """Fill inline code, addresses and the targets of links."""
    pieces, done, at = [], 0, 0
    while found := _OPAQUE.search(prose, at):
        start, end = found.span()
        at = end
        if prose[start] == "`":
            closing = _TICKS.search(prose, end)
            if closing is not None:
                ticks = min(end - start, closing.end() - closing.start())  # what is too many on one side is none of it
                start, end = end - ticks, closing.start() + ticks
                at = end
            elif (
                end - start <= _MOST_TICKS
            ):  # nothing is closed from here on; a longer run is filled: it is slow to look at
                continue
        elif prose[start] != "]":
            end = start + len(found[0].rstrip(_TRAILING))  # a full stop after an address ends the sentence
        pieces += [prose[done:start], _FILLER * (end - start)]
        done = end
    return "".join([*pieces, prose[done:]])
