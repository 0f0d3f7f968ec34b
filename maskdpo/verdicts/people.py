"""The decisions of people: out of one file or several, and which of them count."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from maskdpo.io import Located, read_located
from maskdpo.schemas import Decision

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def read_decisions(files: Iterable[Path]) -> list[Decision]:
    """All decisions of the files, the older before the newer; each file keeps its order, whatever its clock said.

    Raises:
        InputError: a bad line, or two different decisions with one id. The same decision in two files is there once.
    """
    merged = heapq.merge(*(_timed(file) for file in files), key=lambda timed: timed[0])
    found: dict[str, Decision] = {}
    for _, item in merged:
        if found.setdefault(item.record.id, item.record) != item.record:
            raise item.error("id", f"another of the files has another decision with the id {item.record.id!r}")
    return list(found.values())


def _timed(file: Path) -> Iterator[tuple[datetime, Located[Decision]]]:
    """The lines of a file with the latest time up to each of them."""
    latest = _LONG_AGO
    for item in read_located(file, Decision):
        latest = max(latest, item.record.at or latest)
        yield latest, item


def without_names(decisions: Iterable[Decision]) -> list[Decision]:
    """The same decisions with numbers in place of the names of reviewers: 1 is who decided first. The ids of decisions,
    which may hold names, are numbers too."""
    every = list(decisions)
    people = [name for one in every for name in (one.reviewer, *one.adjudicates)]
    number = {name: f"reviewer-{i}" for i, name in enumerate(dict.fromkeys(people), 1)}
    ids = {one.id: f"decision-{i}" for i, one in enumerate(every, 1)}
    return [
        one.model_copy(
            update={
                "id": ids[one.id],
                "reviewer": number[one.reviewer],
                "adjudicates": [number[name] for name in one.adjudicates],
                "undoes": ids.get(one.undoes, "decision-0") if one.undoes else None,
            }
        )
        for one in every
    ]


def standing(decisions: Iterable[Decision]) -> list[Decision]:
    """The decisions that count, labels and skips, in their order.

    The newest decision of a reviewer on a text counts, unless it was undone. An older one counts beside it only where
    their spans do not overlap: whoever joins or splits sentences decides them anew. Reviewers do not affect each other,
    and whoever settles a difference that they are part of (``Decision.adjudicates``) does not take back what they said.

    Args:
        decisions: the older before the newer, as ``read_decisions`` has them.
    """
    every = not_undone(decisions)
    kept: dict[tuple[str, str, str, bool], list[Decision]] = defaultdict(list)
    for one in reversed(every):
        newer = kept[one.reviewer, one.answer_id, one.response, bool(one.adjudicates)]
        if all(one.end <= other.start or other.end <= one.start for other in newer):
            newer.append(one)
    ids = {one.id for group in kept.values() for one in group}
    return [one for one in every if one.id in ids]


def not_undone(decisions: Iterable[Decision]) -> list[Decision]:
    """Labels and skips that were not taken back, in their order."""
    every = list(decisions)
    undone = {one.undoes for one in every if one.act == "undo"}
    return [one for one in every if one.act != "undo" and one.id not in undone]
