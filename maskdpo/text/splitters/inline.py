"""Emphasis, code, formulas, URLs and citations inside prose: sentencex gets a copy without false sentence ends."""

import re

TERMINATORS = r".!?。！？…؟۔।॥։።"
"""Characters that end sentences."""

CITATION = (
    r"\[\^?\d{1,4}(?:[–—,;\s-]+(?:pp?\.\s?)?\d{1,4})*\](?:\([^()\s]*\))?"  # [1], [^1], [1, 2], [4–6], [1](address)
    r"|\[\[\d{1,3}\]\]\([^()\s]*\)"
    r"|\[(?:\^[^\]\s]{1,40}|[a-z]|note \d{1,3}|citation needed)\]"
    r"|【\d[^】\n]{0,60}】"
    r"|[⁰¹²³⁴-⁹]+(?:[˒,][⁰¹²³⁴-⁹]+)*"
    r"|<sup>[^<>]{1,40}</sup>"
    r"|\(\[[^\[\]\n]{1,80}\](?:\([^()\s]*\)|\[\d{1,3}\])\)"  # ([title](address))
    r"|\([A-Z][^()\n]{1,60}, (?:1[5-9]|20)\d\d[a-z]?(?:, pp?\. ?[\d–-]+)?\)"  # (Smith et al., 2020)
)
"""A reference to a source, as it stands behind what it proves."""

_FILLER = "x"
_FORMULAS = (
    r"|\$\$[^$]{1,400}\$\$"
    r"|(?<![\w\\$])\$(?=[^\s$])[^$\n]{1,400}(?<=[^\s\\])\$(?![\w$])"  # "$5 and $6" is money
    r"|\\\(.{1,400}?\\\)|\\\[.{1,400}?\\\]"
)
_OPAQUE = re.compile(
    r"`+|\b(?:https?://|www\.)[^\s<>\"“”，。；！？（）、]+|\]\([^()\s]*\)|(?<![^\s\[(])!(?=\[)" + _FORMULAS
)
_MAY_BE_OPAQUE = re.compile(r"[`$\\]|://|www\.|\]\(|!\[")
_TICKS = re.compile("`+")
_MAX_TICKS = 8  # the longest run that may open inline code
_TRAILING = ".,;:!?)]}'*_"
_NO_END = re.compile(
    r"\.(?:(?<![^\s(\[{\"'“‘«*_/,-]\.)(?=\w)"  # ".NET"
    r"|(?<=[A-Z]{2}\.)(?=[A-Z]{2})"  # "ASP.NET"
    r"|(?<=[ap]\.m\.)(?=\s?(?:[A-Z]{2,4}T|UTC|GMT|Eastern|Central|Mountain|Pacific)\b)"
    r"|(?<=\b[bmt]n\.)(?=\s[A-Z]{3}\b)"  # a sum and its currency
    r"|(?<=[A-Za-z]\.)(?=\s[A-Z]\.\s?[,;]))"  # "Fed. R. Civ. P.,"
)
_TITLE = re.compile(r"(?<![*\w])\*(?=[^\s*])[^*\n]{1,60}(?:(?<=[^\s*.!?…])\*(?!\*)|\*(?=\s[a-z]))|《[^《》\n]{1,60}》")
_ENDS_IN_TITLE = re.compile(r"[.!?！？。…]")
# A run is matched from its start only: matching from each of its characters takes quadratic time.
_CLOSERS = re.compile(
    rf"(?<![{TERMINATORS}])([{TERMINATORS}]+)"
    r"([*_]+|\s?[\U0001F600-\U0001F64F\uFE0F❤]+|(?:&(?:quot|rdquo|rsquo|\#34|\#39);|</[a-z]{1,8}>)+|\s[:;]-?[)(DP])"
    r"(?=([\s\[]|$)|[\u3040-\u30ff\u3400-\u9fff])"
)
_CITED = re.compile(rf"(?<=[{TERMINATORS}\"”’»*_)」』）》])(?:\s?(?:{CITATION}))+")
_ENDED = re.compile(rf"[{TERMINATORS}]+[\"”’»*_)」』）》]*$")
_WIDE_END = re.compile(r"[。！？]")
_TOKEN = 30  # characters of a word before a citation
_ELISION = re.compile(r"(?<!\w)'(?=(?:\d0s|[Tt](?:is|was|il)|[Ee]m|[Cc]ause)\b)")
_FEET = re.compile(r"(?<=\d)['\"](?=\d|\s)")


def plain_copy(prose: str) -> str:
    """A copy of the same length, in which every full stop that looks like a sentence end is one.

    URLs, formulas and inline code become letters, because their full stops end no sentence. A full stop before the
    closing markers of emphasis changes places with them, because the sentence ends after them: in "**Stop.** Go" it
    ends after "**". A citation changes places with the word before it: "the U.S. [1] law" is "the     U.S. law".
    """
    if _MAY_BE_OPAQUE.search(prose):
        prose = _fill_opaque(prose)
    if "." in prose:
        prose = _NO_END.sub(_FILLER, prose)
    if "'" in prose or '"' in prose:
        prose = _FEET.sub(_FILLER, _ELISION.sub(_FILLER, prose))
    if "*" in prose or "《" in prose:
        prose = _TITLE.sub(lambda found: _ENDS_IN_TITLE.sub(_FILLER, found[0]), prose)
    if "[" in prose or "(" in prose or "<sup>" in prose or not prose.isascii():
        prose = _move_citations(prose)
    if "*" in prose or "_" in prose or "&" in prose or "<" in prose or not prose.isascii():
        prose = _move_ends(prose)
    return prose


def _fill_opaque(prose: str) -> str:
    """Replace inline code, formulas, URLs and the targets of links by letters."""
    pieces, done, at = [], 0, 0
    while found := _OPAQUE.search(prose, at):
        start, end = found.span()
        at = end
        last = ""
        if prose[start] == "`":
            closing = _TICKS.search(prose, end)
            if closing is not None:
                ticks = min(end - start, closing.end() - closing.start())  # surplus ticks are not part of the code
                start, end = end - ticks, closing.start() + ticks
                at = end
            elif end - start <= _MAX_TICKS:  # no code is closed from here on; longer runs, slow to scan, are replaced
                continue
        elif prose[start] in "$\\":
            if found[0].rstrip("$\\)] ").endswith("."):
                last = "."  # the sentence ends with the formula
        elif prose[start] not in "]!":
            end = start + len(found[0].rstrip(_TRAILING))  # a full stop after a URL ends the sentence
        pieces += [prose[done:start], _FILLER * (end - start - len(last)), last]
        done = end
    return "".join([*pieces, prose[done:]])


def _move_citations(prose: str) -> str:
    """Change the places of citations and of the ended words before them."""
    pieces, done = list[str](), 0
    for cited in _CITED.finditer(prose):
        start, end = cited.span()
        token = max(done, start - _TOKEN)
        ended = _ENDED.search(prose, token, start)
        if ended is None:
            continue
        token = max(prose.rfind(" ", token, ended.start()) + 1, token)
        blank = " "
        if _WIDE_END.match(prose, ended.start()):
            token, blank = ended.start(), _FILLER
        pieces += [prose[done:token], blank * (end - start), prose[token:start]]
        done = end
    return "".join([*pieces, prose[done:]]) if pieces else prose


def _move_ends(prose: str) -> str:
    """Move full stops behind the closing markers that follow them."""
    counted, bold = 0, 0

    def moved(found: re.Match[str]) -> str:
        nonlocal counted, bold
        if found[3] is None:  # no white space follows: the markers may open emphasis as well
            if found[2] != "**":
                return found[0]
            bold += prose.count("**", counted, found.start())
            counted = found.start()
            if bold % 2 == 0:
                return found[0]
        return _FILLER * len(found[2]) + found[1]

    return _CLOSERS.sub(moved, prose)
