"""What is published of the decisions of people."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from maskdpo.html.render import SummaryTable
from maskdpo.people.agree import agreement_of
from maskdpo.people.tables import tables_of
from maskdpo.schemas import Decision
from maskdpo.verdicts.people import read_decisions, without_names


class Published(NamedTuple):
    """Decisions, and how far the people agree, for the card of a dataset."""

    decisions: list[Decision]
    agreement: list[SummaryTable]


def published(files: Iterable[Path], *, names: bool) -> Published:
    """What ``maskdpo push`` publishes of these files; nothing where there are none.

    Args:
        names: publish the names of reviewers; else they are numbers.
    """
    decisions = read_decisions(files)
    if not decisions:
        return Published([], [])
    decisions = decisions if names else without_names(decisions)
    return Published(decisions, list(tables_of(agreement_of(decisions))))
