"""Emphasis, code and URLs inside prose: sentencex gets a copy in which they do not look like sentence ends."""

import re

_FILLER = "x"
_OPAQUE = re.compile(r"`+|\b(?:https?://|www\.)[^\s<>\"“”，。；！？（）、]+|\]\([^()\s]*\)")
_TICKS = re.compile("`+")
_MAX_TICKS = 8  # the longest run that may open inline code
_TRAILING = ".,;:!?)]}'*_"
_LEADING_DOT = re.compile(r"(?<![\w.)\]}])\.(?=\w)")
# A run is matched from its start only: matching from each of its characters takes quadratic time.
_CLOSERS = re.compile(r"(?<![.!?。！？…])([.!?。！？…]+)([*_]+|\s?[\U0001F600-\U0001F64F\uFE0F❤]+)(?=[\s\[]|$)")
_ELISION = re.compile(r"(?<!\w)'(?=(?:\d0s|[Tt](?:is|was|il)|[Ee]m|[Cc]ause)\b)")
_FEET = re.compile(r"(?<=\d)['\"](?=\d|\s)")


def plain_copy(prose: str) -> str:
    """A copy of the same length, in which every full stop that looks like a sentence end is one.

    URLs and inline code become letters, because their full stops end no sentence. A full stop before the closing
    markers of emphasis changes places with them, because the sentence ends after them: in "**Stop.** Go" it ends
    after "**".
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
    """Replace inline code, URLs and the targets of links by letters."""
    pieces, done, at = [], 0, 0
    while found := _OPAQUE.search(prose, at):
        start, end = found.span()
        at = end
        if prose[start] == "`":
            closing = _TICKS.search(prose, end)
            if closing is not None:
                ticks = min(end - start, closing.end() - closing.start())  # surplus ticks are not part of the code
                start, end = end - ticks, closing.start() + ticks
                at = end
            elif end - start <= _MAX_TICKS:  # no code is closed from here on; longer runs, slow to scan, are replaced
                continue
        elif prose[start] != "]":
            end = start + len(found[0].rstrip(_TRAILING))  # a full stop after a URL ends the sentence
        pieces += [prose[done:start], _FILLER * (end - start)]
        done = end
    return "".join([*pieces, prose[done:]])
