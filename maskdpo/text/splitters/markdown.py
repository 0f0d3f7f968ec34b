"""The default splitter: Markdown blocks, sentencex inside their prose, and a few corrections of its result.

A correction must follow a rule of the language ("a sentence does not begin in lower case"), not a single example.
"""

import re

import sentencex

from maskdpo.text.splitters.base import VERSION, BlockSplitter
from maskdpo.text.splitters.inline import TERMINATORS, plain_copy
from maskdpo.text.splitters.languages import Rules, code, rules
from maskdpo.text.splitters.markers import IMAGES

_MAY_END = re.compile(r"[^\w\s,;:()\[\]\"'*-]")
_CONTEXT = 48  # characters that are read before a cut, or at the start of a sentence
_CHUNK = 8192  # characters that sentencex gets at once, more than ordinary paragraphs have

_FIRST_WORD = re.compile(r"[^\w]*(\w+)")
_TERMINATED = re.compile(rf"[{TERMINATORS}][*_\"'”’»)\]]*\s*$")
_BEFORE_NUMBER = re.compile(
    r"(?<![\w.])(?:approx|vols?|pp?|chs?|secs?|figs?|eqs?|nos?|arts?|pars?|ver|max|min|est|ca?|op|nr|b|d|r)\.\s*$",
    re.IGNORECASE,
)
_BEFORE_LETTER = re.compile(r"(?<!\w)(?:App|Fig|Figs|Sec|Ch|Vol|Eq|Pt|Art|Tab)\.\s*$")
_NUMBER = re.compile(r"\s*[$€£¥~±+-]?\d")
_LETTER = re.compile(r"\s*[A-Z](?![\w'’])")
_LONE_NUMBER = re.compile(r"\W*\d{1,2}[.)]\W*$")
_WORD = re.compile(r"\w")
_NEXT = re.compile(r"\s*(\S)")
_CLOSERS = re.compile(r"[)\]}”」』）】》]+")
_SPEAKER = re.compile(
    r"\s*(?:[^\W\d_a-zA-Z]{1,8}?[说问答喊叫道][，。：！？]|[的等和与及或、，]|出自|这一?(?:句|段|首|种|说法|问题))"
)
_SAID = re.compile(
    r"\s+(?:[A-Z][\w.'’-]*\s){1,3}(?:asked|said|replied|answered|cried|shouted|exclaimed|whispered|added)\b"
)
_QUESTION = re.compile(r"[!?][\"”]\s*$")
_WIDE = re.compile(r"[。！？][”’」』）*]*$")
_PART = re.compile(
    r"\W*(?:Chapter|Part|Act|Scene|Section|Article|Volume|Book|Appendix|Step)\s(?:[IVXLC]+|\d+|[A-Z])\.\W*$"
)
_TOLD = re.compile(r"[:：]\s*[“「『][^“”「」『』]*[”」』]\s*$")  # who speaks is named before the quotation
_QUOTE_END = re.compile(r"[。！？…][”」』]\s*$")
# An entry in a list of references is one sentence, though its parts end with full stops. It is known by the full stop,
# the year and the full stop of "Lee, K. (2020). Title"; by a number and initials ("[2] J. Lee and"); by a number and
# the letter of GB/T 7714 ("[3] ... [M]"); or by a name and a title ("Lee, Kim. "Title"").
_SOURCE = re.compile(
    r"\s*(?:(?:\[\d{1,3}\]\s*[^\W\d_]|[^\W\d_][\w'’-]*, (?=[^\W\d_]\.))[^\n]{1,250}?"
    r"\.\*{0,2}\s\((?:1[5-9]|20)\d\d[a-z]?(?:, [^()]{1,20})?\)\.\s"
    r"|\[\d{1,3}\]\s*(?:[A-Z]\.[ -]?)+\s?[^\W\d_][\w'’-]+(?:,| and (?=[A-Z])| & | et al)"
    r"|\[\d{1,3}\][^\[\n]{1,250}\[[A-Z]{1,2}(?:/OL)?\]"
    r"|[^\W\d_][\w'’-]+, [^\W\d_][\w-]*(?: [A-Z])?\. [\"“*])"
)

# Sentence ends that sentencex does not find; the sentence ends with the match.
_MISSED = re.compile(
    r"\.(?:(?:(?<=[.!?:*] No\.)|(?<=^No\.)|(?<=[\"“]No\.))(?=\s+[^\W\d])"  # the answer "No.", not the number "No. 5"
    r"|(?<=\betc\.)\)?(?=\s+[A-Z])"
    r"|(?:(?<=\bno\.)|(?<=\bart\.)|(?<=\bmay\.)|(?<=\barc\.))"  # words that are abbreviations too
    r"(?=\s+[\"“(]?(?:[A-Z][a-z'’]|[IA]\s))"
    r"|(?:(?<=\d [a-mo-uw-z]\.)|(?<=\d[a-mo-uw-z]\.)|(?<=[\d ][kcm]m\.)|(?<=\d pp\.)|(?<=°[CF]\.))"
    r"(?=\s+[A-Z][a-z'’]))"  # a unit: "8 m. The"
)
_WIDE_END = re.compile(r"[。！？](?=[\da-z])")
_ASIDE = re.compile(
    r"\s*\([^()]*[.!?]\)(?=\s+\S)|（[^（）]*[。！？]）(?=[^\s，。；、：！？])"
)  # in brackets, on its own


def markdown_splitter() -> BlockSplitter:
    """The splitter ``markdown``. Needs no model and no download."""
    return BlockSplitter(f"markdown-{VERSION}", cut)


def cut(prose: str, language: str) -> list[int]:
    """Where the sentences of ``prose`` end: a ``Cutter``."""
    first = _MAY_END.search(prose)
    if first is None or not _WORD.search(prose, first.end()):  # most headings, list items and short lines
        return []
    if "." in prose and _SOURCE.match(prose):
        return []
    plain = plain_copy(prose)
    language = code(language)
    known = rules(language)
    ends = _boundaries(plain, language)
    missed = [found.end() for found in _MISSED.finditer(plain)]
    if not plain.isascii():
        missed += [found.end() for found in _WIDE_END.finditer(plain)]
    if known.missed:
        missed += [found.end() for found in known.missed.finditer(plain)]
    if missed:
        ends = sorted({*ends, *missed})
    ends = [_past_closers(prose, _trimmed(plain, end)) for end in ends]
    if "(" in prose or "（" in prose:
        ends = _split_asides(prose, ends)
    return _merge(prose, plain, ends, known) if len(ends) > 1 else ends


def _boundaries(plain: str, language: str) -> list[int]:
    """The sentence ends that sentencex finds.

    Its time grows with the square of the length, so a very long text is passed in chunks. Each chunk begins at a
    sentence end in the first half of the chunk before.
    """
    ends: list[int] = []
    at, size = 0, _CHUNK
    while True:
        piece = plain[at : at + size]
        found = [at + boundary["end_index"] for boundary in sentencex.get_sentence_boundaries(language, piece)]
        if at + len(piece) == len(plain):
            return ends + found
        certain = [end for end in found if end <= at + size // 2]
        if certain:
            ends += certain
            at, size = certain[-1], _CHUNK
        else:
            size *= 2  # a sentence that is longer than half a chunk


def _trimmed(plain: str, end: int) -> int:
    """The end without white space, which may stand elsewhere in the copy than in the text."""
    while end and plain[end - 1].isspace():
        end -= 1
    return end


def _past_closers(prose: str, end: int) -> int:
    """No sentence begins with a closing bracket or quote: they belong to the sentence before."""
    closers = _CLOSERS.match(prose, end)
    return closers.end() if closers else end


def _split_asides(prose: str, ends: list[int]) -> list[int]:
    """Cut after a sentence that is entirely in brackets: "It rained. (It often does.) We left." """
    more = []
    start = 0
    for end in ends:
        aside = _ASIDE.match(prose, start, end)
        if aside and not _begins_in_lower_case(prose, aside.end()):
            more.append(aside.end())
        start = end
    return sorted({*ends, *more})


def _begins_in_lower_case(prose: str, at: int) -> bool:
    following = _NEXT.match(prose, at)
    return following is not None and following[1].islower()


def _merge(prose: str, plain: str, ends: list[int], known: Rules) -> list[int]:
    """Drop the cuts inside sentences."""
    kept: list[int] = []
    start = 0
    for i, end in enumerate(ends[:-1]):
        if not _goes_on(prose, plain, start, end, ends[i + 1], known):
            kept.append(end)
            start = end
    return [*kept, ends[-1]]


def _goes_on(prose: str, plain: str, start: int, end: int, next_end: int, known: Rules) -> bool:
    """Whether the sentence from ``start`` continues after ``end``, with the piece up to ``next_end``."""
    first = _FIRST_WORD.match(prose, end, next_end)  # not beyond this piece: the next one has its own turn
    if prose.startswith("![", end + 1) and IMAGES.match(prose, end, next_end):
        return True
    if first is None or (first.end() == next_end and _WORD.match(prose, next_end)):  # punctuation, or part of a word
        return True
    before = plain[max(start, end - _CONTEXT) : end]
    word = first[1]
    if word[0].islower() and not word[1:2].isupper():  # not "iPhone", and not in a text without capitals
        opening = _WORD.search(prose, start, start + _CONTEXT)
        if opening and not opening[0].islower() and _TERMINATED.search(before) and not _WIDE.search(before):
            return True
    if _NUMBER.match(prose, end) and _BEFORE_NUMBER.search(before):
        return True
    if _LETTER.match(prose, end) and _BEFORE_LETTER.search(before):
        return True
    if prose.startswith("-", end) or (known.no_end and known.no_end.search(before)):  # "J.-C."
        return True
    if _QUESTION.search(before) and _SAID.match(prose, end):  # "Why?" Mary asked.
        return True
    if end - start < 24 and _PART.match(prose, start, end):  # "Chapter IV. The Storm"
        return True
    if known.particle and _QUOTE_END.search(before) and known.particle.match(prose, end):
        return True
    if end - start < 12 and _LONE_NUMBER.match(prose, start, end):  # "**1.** Wash", not "How many? 12. Now"
        return not prose[max(0, start - _CONTEXT) : start].rstrip().endswith("?")
    return bool(_QUOTE_END.search(before) and _SPEAKER.match(prose, end) and not _TOLD.search(before))
