"""The fragment at the end of an answer that was cut off: neither judged nor trained nor counted (docs/sentences.md)."""

import re
from collections.abc import Sequence

from maskdpo.schemas.labels import Kind
from maskdpo.schemas.records import Annotation, FinishReason, Span
from maskdpo.text.language import detect_language
from maskdpo.text.splitters.markdown import cut

RULE = "1"
"""Version of the rule, for the records of runs: another version may leave other ends out."""

_CITATION = r"(?:\[\^?[\w ,;:.–-]{1,40}\](?:\([^()\s]*\))?|【[^【】]*】|<sup>[^<>]{1,20}</sup>|[¹²³⁰⁴-⁹]+)"
_CLOSER = r"[^\w\s.,;:!?…、，；：([{<“‘„«「『（【《/\\|&@#%+=$€£-]"
"""A closing bracket or quote, emphasis, an emoji: what may stand behind the mark that ends a sentence."""
_ENDS = re.compile(rf"(?P<mark>[.!?…‥‽⁇⁈⁉。！？｡．؟۔।॥։።፧။៕᠃᙮])(?:\s*{_CITATION}|\s?{_CLOSER})*$")
_LONE_MARKER = re.compile(r"\W*(?:\d{1,3}|[^\W\d_]|[ivxlc]+)[.)）、．]\W*", re.IGNORECASE)
_FENCE_END = re.compile(r"\s*?\n[ \t>]*(?:`{3,}|~{3,})[ \t]*(?:\n|$)")
_LOOKED_AT = 400  # characters
_NAME = " Smith"
"""What an abbreviation may stand before, and what a sentence may begin with."""


def set_apart(spans: Sequence[Span], text: str, finish_reason: FinishReason | None) -> list[Span]:
    """The spans of an answer, of which a fragment at its end is of the kind ``fragment``."""
    torn = fragment(spans, text) if finish_reason == "length" else None
    return list(spans) if torn is None else [*(span for span in spans if span.end <= torn.start), torn]


def fragment(spans: Sequence[Span], text: str) -> Span | None:
    """Where the last sentence of a text that was cut off is torn; None where the text stops at the end of a sentence.

    The last span ends by itself if a line break follows it, if it ends like a sentence (``ends_like_a_sentence``), if
    it is code whose fence is closed, or the row of a table with all its cells. What stands behind the last span (the
    marker of a next list item) is a fragment, too.
    """
    last = spans[-1] if spans else None
    if last is not None and last.kind is Kind.FRAGMENT:
        return last
    begin = 0 if last is None else last.end
    if last is not None and last.kind is Kind.CODE:
        closed = _FENCE_END.match(text, begin)
        if closed is None:
            return last._replace(kind=Kind.FRAGMENT)
        begin = closed.end()
    rest = text[begin:]
    if behind := rest.strip():
        start = begin + len(rest) - len(rest.lstrip())
        return Span(start, start + len(behind), Kind.FRAGMENT)
    if last is None or last.kind is Kind.CODE or "\n" in rest or _complete(spans, text):
        return None
    return last._replace(kind=Kind.FRAGMENT)


def _complete(spans: Sequence[Span], text: str) -> bool:
    """Whether the last span, behind which the text ends, ends by itself."""
    last = spans[-1]
    sentence = text[last.start : last.end]
    if last.kind is not Kind.TABLE:  # a splitter may have cut off a citation or an emoji: the line is looked at
        line = max(text.rfind("\n", 0, last.end) + 1, last.end - _LOOKED_AT)
        return not _LONE_MARKER.fullmatch(sentence) and ends_like_a_sentence(text[line : last.end])
    above = spans[-2] if len(spans) > 1 and spans[-2].kind is Kind.TABLE else None
    return above is not None and sentence.endswith("|") and _bars(sentence) >= _bars(text[above.start : above.end])


def _bars(row: str) -> int:
    return row.replace(r"\|", "").strip().strip("|").count("|")


def ends_like_a_sentence(text: str) -> bool:
    """Whether a text ends with a mark that ends sentences, in any script, and maybe with closing quotes, brackets,
    emphasis, citations or emoji behind it. An abbreviation or a lone list marker is no end."""
    text = text.strip()
    found = _ENDS.search(text)
    if found is None or _LONE_MARKER.fullmatch(text):
        return False
    if found["mark"] != ".":
        return True
    sentence = text[: found.end("mark")]
    ends = cut(sentence + _NAME, detect_language(sentence))
    return any(0 <= end - len(sentence) <= 1 for end in ends)


def fragment_was_judged(annotation: Annotation) -> bool:
    """Whether an answer has its fragment as a sentence like others, from a version that knew of no fragments."""
    if annotation.finish_reason != "length" or not annotation.sentences:
        return False
    spans = [Span(sentence.start, sentence.end, sentence.kind) for sentence in annotation.sentences]
    torn = fragment(spans, annotation.response)
    return torn is not None and spans[-1].kind is not Kind.FRAGMENT and torn.start <= spans[-1].start
