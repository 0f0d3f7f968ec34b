"""``maskdpo annotate``: split every response, have its sentences judged, append what comes back; resumable."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from maskdpo.annotate.judge import Judge, Task, Verdict
from maskdpo.annotate.language import detect_language
from maskdpo.annotate.splitters import Splitter
from maskdpo.console import Ticker, progress
from maskdpo.errors import InputError, UserError
from maskdpo.io import Appender, read_answers, read_prompts, refuse_overwriting, reorder
from maskdpo.runs import Run, meta_file, set_aside
from maskdpo.schemas import Annotation, JudgeInfo, Kind, Label, Prompt, Response, Sentence, Span, Status

WITHOUT_CLAIM = frozenset({Kind.HEADING, Kind.CODE})
"""Kinds that state nothing to check: ``no_fact`` without asking a judge. Table rows state facts and are judged."""

FLUSH_RECORDS, FLUSH_SECONDS = 256, 2.0
"""Finished answers are written and synced when there are so many of them, or after so long."""


@dataclass
class AnnotateStats:
    """What a run of ``annotate`` did."""

    responses: int = 0
    already_there: int = 0
    """Responses that an earlier run had annotated."""
    sentences: int = 0
    labels: Counter[Label] = field(default_factory=Counter)
    statuses: Counter[Status] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        return self.sentences - self.statuses[Status.OK]


def annotate(
    prompts_file: Path,
    responses_file: Path,
    out: Path,
    judge: Judge,
    splitter: Splitter,
    *,
    restart: bool = False,
) -> AnnotateStats:
    """Label every sentence of every response and append the annotations to ``out`` as they come.

    What is in ``out`` already is kept; a run with another judge, protocol or splitter refuses to add to it. When all is
    done the file is in the order of ``responses_file``.

    Args:
        restart: set an earlier output aside and begin anew.
    """
    refuse_overwriting(out, prompts_file, responses_file)
    prompts = read_prompts(prompts_file)
    order = [response.id for response in read_answers(responses_file, Response, prompts)]
    if restart:
        set_aside(out, meta_file(out))
    info = judge.info.model_copy(update={"splitter": splitter.name})
    inputs = {"prompts": prompts_file, "responses": responses_file}
    hint = "Labels of different judges are not mixed: use another --out, or --restart to set it aside and begin anew"
    run = Run(meta_file(out), "annotate", info.model_dump(), inputs, restart=hint)
    written: dict[str, str] = {}
    appender = Appender(out, Annotation, lambda record: written.setdefault(record.id, record.response))
    responses = read_answers(responses_file, Response, prompts)
    missing = _not_yet(responses, written, out)
    stats = AnnotateStats(responses=len(order), already_there=sum(response_id in written for response_id in order))
    if stats.already_there == len(order) and run.previous and run.previous.status == "complete":
        list(missing)  # still checks that no text has changed
        return stats  # nothing is left to do, and the record of the run stays as it is
    started = time.monotonic()
    with progress("annotate", len(order), "responses") as bar:
        bar.advance(stats.already_there)
        judged = judge.judge(_tasks(missing, prompts, splitter))
        batches = _batches(_annotation(task, verdicts, info) for task, verdicts in judged)
        first = list(islice(batches, 1))  # a judge that cannot work fails here, before anything is written
        run.begin()
        with appender:
            for batch in chain(first, batches):
                appender.append(batch)
                written.update((annotation.id, "") for annotation in batch)
                _count(stats, batch, bar)
    if list(written) != order:
        reorder(out, Annotation, order)
    stats.seconds = time.monotonic() - started
    run.finish(_counts(stats))
    return stats


def _not_yet(responses: Iterable[Response], written: dict[str, str], out: Path) -> Iterator[Response]:
    """The responses that ``out`` does not hold yet; one that has another text there is an error."""
    for response in responses:
        if response.id not in written:
            yield response
        elif written[response.id] != response.response:
            raise InputError(
                f"{response.id!r} is annotated here with another text; use another --out or --restart",
                path=out,
            )


def _tasks(responses: Iterable[Response], prompts: dict[str, Prompt], splitter: Splitter) -> Iterator[Task]:
    for response in responses:
        prompt = prompts[response.prompt_id]
        spans = splitter.split(response.response, prompt.language or detect_language(response.response))
        given = tuple(_sentence(span, Verdict(Label.NO_FACT)) for span in spans if span.kind in WITHOUT_CLAIM)
        yield Task(prompt, response, [span for span in spans if span.kind not in WITHOUT_CLAIM], given)


def _annotation(task: Task, verdicts: list[Verdict], info: JudgeInfo) -> Annotation:
    judged = [_sentence(span, verdict) for span, verdict in zip(task.spans, verdicts, strict=True)]
    sentences = sorted([*judged, *task.given], key=lambda sentence: sentence.start)
    return Annotation(**dict(task.response), sentences=sentences, judge=info)


def _sentence(span: Span, verdict: Verdict) -> Sentence:
    return Sentence(
        start=span.start,
        end=span.end,
        kind=span.kind,
        label=verdict.label,
        status=verdict.status,
        confidence=verdict.confidence,
        evidence=verdict.evidence,
        reason=verdict.reason,
    )


def _batches(annotations: Iterable[Annotation]) -> Iterator[list[Annotation]]:
    """Group what comes in; whatever stops the run, the group in hand is still written."""
    batch: list[Annotation] = []
    since = time.monotonic()
    failed: BaseException | None = None
    stream = iter(annotations)
    while True:
        try:
            batch.append(next(stream))
        except StopIteration:
            break
        except (UserError, KeyboardInterrupt) as error:
            failed = error
            break
        if len(batch) >= FLUSH_RECORDS or time.monotonic() - since >= FLUSH_SECONDS:
            yield batch
            batch, since = [], time.monotonic()
    if batch:
        yield batch
    if failed is not None:
        raise failed


def _count(stats: AnnotateStats, batch: list[Annotation], bar: Ticker) -> None:
    for annotation in batch:
        stats.sentences += len(annotation.sentences)
        stats.labels.update(sentence.label for sentence in annotation.sentences if sentence.label)
        stats.statuses.update(sentence.status for sentence in annotation.sentences)
    bar.advance(len(batch), f"{stats.sentences:,} sentences, {stats.failed:,} not judged")


def _counts(stats: AnnotateStats) -> dict[str, object]:
    return {
        "responses": stats.responses,
        "sentences": stats.sentences,
        "labels": {label.value: count for label, count in stats.labels.items()},
        "statuses": {status.value: count for status, count in stats.statuses.items()},
    }
