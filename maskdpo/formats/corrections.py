"""What people have corrected in a tool for annotation, as decisions. One span of one person is one decision."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from maskdpo.formats import NOT_JUDGED
from maskdpo.schemas import Decision, Label
from maskdpo.schemas.decisions import Part
from maskdpo.verdicts.gold import overlapping


class Suggested(NamedTuple):
    """A span with the label of the judge, as the tool showed it. Code points."""

    start: int
    end: int
    label: Label | None
    confidence: float | None = None


class Corrected(NamedTuple):
    """A span with the label of a person."""

    start: int
    end: int
    label: Label


def corrections(
    spans: Sequence[Corrected], suggested: Sequence[Suggested], *, id_prefix: str, **same: Any
) -> list[Decision]:
    """The decisions of one person on one answer.

    The label of the judge is that of the suggested span that shares most with the corrected one. A span that is not one
    of the suggested ones was joined or split by the person.

    White space around a span, which a hand may have marked too, is left out.

    Args:
        same: what all decisions share: ``prompt_id``, ``answer_id``, ``response``, ``reviewer`` ...

    Raises:
        ValueError: two spans overlap, so that a text has two labels.
    """
    spans = sorted({_trimmed(span, same["response"]) for span in spans})
    for one, other in pairwise(spans):
        if other.start < one.end:
            raise ValueError(
                f"{same['reviewer']} has labelled the spans {one.start}:{one.end} and {other.start}:{other.end} of "
                f"{same['answer_id']!r}, which overlap"
            )
    return [
        Decision(
            id=f"{id_prefix}-{span.start}-{span.end}",
            start=span.start,
            end=span.end,
            label=span.label,
            **_judged(span, suggested),
            **same,
        )
        for span in spans
    ]


def _trimmed(span: Corrected, text: str) -> Corrected:
    marked = text[span.start : span.end]
    start = span.start + len(marked) - len(marked.lstrip())
    return span._replace(start=start, end=start + len(marked.strip()))


def _judged(span: Corrected, suggested: Sequence[Suggested]) -> dict[str, Any]:
    most = overlapping(suggested, span)
    if most is None:
        return {}
    under = [one for one in suggested if one.start < span.end and span.start < one.end]
    uncut = (most.start, most.end) == (span.start, span.end)
    return {
        "judged": most.label,
        "judged_confidence": most.confidence,
        "made_of": [] if uncut else [Part(start=one.start, end=one.end) for one in under],
    }


def label_named(name: str) -> Label | None:
    """The label of this name; None: not judged.

    Raises:
        ValueError: there is no such label.
    """
    if name == NOT_JUDGED:
        return None
    if name not in set(Label):
        raise ValueError(f"the label {name!r} is none of {', '.join(Label)}, {NOT_JUDGED}")
    return Label(name)
