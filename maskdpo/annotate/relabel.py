"""``maskdpo relabel``: labels anew from the scores that annotations hold."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskdpo.annotate.deciding import decided, under
from maskdpo.annotate.stats import SentenceCounts
from maskdpo.console import progress
from maskdpo.errors import UserError
from maskdpo.io import atomic_write, read_located, record_writer, refuse_overwriting
from maskdpo.run_record import meta_file, refuse_replacing
from maskdpo.schemas import Annotation, Kind, Sentence, Status
from maskdpo.stage_run import Run
from maskdpo.text.fragment import fragment_was_judged
from maskdpo.verdicts.decision import Rule

NO_JUDGE = "is missing: the labels are those of people, as in a gold file, and no rule replaces these"


@dataclass
class RelabelStats:
    """What changed."""

    file: SentenceCounts = field(default_factory=SentenceCounts)
    """The output."""
    changed: int = 0
    """Sentences with another label than before, or with one for the first time."""
    now_unsure: int = 0
    """Sentences that had a label and are unsure now."""
    now_fragments: int = 0
    """Fragments that an earlier version of maskdpo had judged as sentences."""

    def note(self, before: Annotation, after: Annotation) -> None:
        self.file.add(after)
        for old, new in zip(before.sentences, after.sentences, strict=True):
            self.changed += new.label is not None and new.label != old.label
            self.now_fragments += new.kind is not old.kind
            self.now_unsure += new.status is Status.UNSURE and old.label is not None

    def summary(self) -> dict[str, Any]:
        """As JSON values; the keys are always the same."""
        counts = {name: getattr(self, name) for name in ("changed", "now_unsure", "now_fragments")}
        return {"whole_file": self.file.summary(), **counts}


def relabel(annotations: Path, out: Path, rule: Rule, *, summary: Path | None = None) -> RelabelStats:
    """Write the annotations with the labels that a rule gives their scores; scores and all else stay as they are.

    The fragment at the end of an answer that was cut off loses the label that an earlier version had given it.
    The result does not depend on rules that were applied before.

    Args:
        summary: where to write the figures as JSON.

    Raises:
        UserError: annotations without a judge, or of another judge than the calibration is for.
    """
    inputs = {"annotations": annotations} | ({"calibration": rule.source} if rule.source else {})
    refuse_overwriting(out, *inputs.values())
    refuse_replacing(out, "relabel", only_own=True)
    if summary is not None:
        refuse_overwriting(summary, *inputs.values())
        refuse_replacing(summary)
    options = {"calibration": rule.calibration_hash, "min_confidence": rule.min_confidence}
    run = Run(meta_file(out), "relabel", options, inputs, restart=None)
    stats = RelabelStats()
    with progress("relabel", None, "answers") as bar, record_writer(out) as write:
        for item in read_located(annotations, Annotation):
            if item.record.judge is None:
                raise item.error("judge", NO_JUDGE)
            after = _relabelled(item.record, rule)
            stats.note(item.record, after)
            write(after)
            bar.advance()
        run.begin()  # the earlier output and its record stand until the new one is complete
    run.finish(stats.summary())
    if summary is not None:
        with atomic_write(summary) as file:
            file.write(json.dumps(stats.summary(), indent=2).encode() + b"\n")
    return stats


def stream_relabelled(annotations: Iterable[Annotation], rule: Rule) -> Iterator[Annotation]:
    """The same in memory."""
    return (_relabelled(record, rule) for record in annotations)


def _relabelled(record: Annotation, rule: Rule) -> Annotation:
    if record.judge is None:
        raise UserError(f"{record.id!r}: judge: {NO_JUDGE}")
    sentences = [decided(sentence, rule, record.judge) for sentence in record.sentences]
    if fragment_was_judged(record):
        torn = sentences[-1]
        sentences[-1] = Sentence(start=torn.start, end=torn.end, kind=Kind.FRAGMENT, status=Status.FRAGMENT)
    return record.model_copy(update={"sentences": sentences, "judge": under(rule, record.judge)})
