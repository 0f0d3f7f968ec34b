"""Labels of people: ``gold`` and ``agree``."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from maskdpo.api.given import paths_given
from maskdpo.io.memory import File, checked
from maskdpo.schemas import Annotation, Decision

if TYPE_CHECKING:
    from maskdpo.people.agree import AgreeResult


def gold_of_decisions(decisions: File | Sequence[File] | Iterable[Decision]) -> list[Annotation]:
    """Annotations without a judge, of what most people say or an adjudication settled: ``maskdpo gold``.

    Args:
        decisions: a path, several paths, or records, the older before the newer.
    """
    from maskdpo.people.gold import gold_records
    from maskdpo.people.sentences import decided

    return gold_records(decided(_decisions(decisions)))


def agreement_of_people(
    decisions: File | Sequence[File] | Iterable[Decision], *, all_sentences: bool = False
) -> "AgreeResult":
    """How far people agree with each other and with the judge: ``maskdpo agree``.

    Args:
        decisions: a path, several paths, or records, the older before the newer.
        all_sentences: count sentences that were not drawn at random too.
    """
    from maskdpo.people.agree import agreement_of

    return agreement_of(_decisions(decisions), all_sentences=all_sentences)


def _decisions(given: Any) -> list[Decision]:
    from maskdpo.verdicts.people import read_decisions

    return read_decisions(paths_given(given)) if paths_given(given) else list(checked(given, Decision))
