"""``maskdpo annotate``: split every response, have its sentences judged, append what comes back; resumable."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from pydantic import ValidationError

from maskdpo.annotate.judge import Judge, Task, Verdict
from maskdpo.annotate.output import Known, Output, as_recorded, failed_of, known, merge_left_over, retry_file
from maskdpo.annotate.stats import AnnotateStats, usage_since
from maskdpo.console import progress
from maskdpo.errors import InputError, UserError
from maskdpo.io import (
    Appender,
    atomic_write,
    read_answers,
    read_located,
    read_prompts,
    read_records,
    refuse_overwriting,
)
from maskdpo.io.append import sole_writer
from maskdpo.prompt_date import Dated, fix_date
from maskdpo.run_record import Run, meta_file, set_aside
from maskdpo.schemas import Annotation, JudgeInfo, Kind, Label, Prompt, Response, Sentence, Span, Status
from maskdpo.text.language import detect_language
from maskdpo.text.splitters import Splitter

WITHOUT_CLAIM = frozenset({Kind.HEADING, Kind.CODE})
"""Kinds that state nothing to check: ``no_fact`` without asking a judge. Table rows state facts and are judged."""

FLUSH_RECORDS, FLUSH_SECONDS = 256, 2.0
"""Finished answers are written and synced when there are so many of them, or after so long."""


def annotate(
    prompts_file: Path,
    responses_file: Path,
    out: Path,
    judge: Judge,
    splitter: Splitter,
    *,
    restart: bool = False,
    retry_failed: bool = False,
    summary: Path | None = None,
) -> AnnotateStats:
    """Label every sentence of every response and append the annotations to ``out`` as they come.

    What is in ``out`` already is kept; a run with another judge, protocol or splitter refuses to add to it. When all is
    done the file is in the order of ``responses_file``.

    Args:
        restart: set an earlier output aside and begin anew.
        retry_failed: ask again for the sentences of ``out`` that have no verdict, and for these only.
        summary: where to write the run's figures as JSON.
    """
    refuse_overwriting(out, prompts_file, responses_file)
    if summary is not None:
        refuse_overwriting(summary, prompts_file, responses_file)
        _check_summary(summary, out)
    prompts = read_prompts(prompts_file)
    responses = _known(prompts_file, responses_file, prompts, judge)
    with sole_writer(out):
        if restart:
            set_aside(out, meta_file(out), retry_file(out))
        info = as_recorded(judge.info, meta_file(out)).model_copy(update={"splitter": splitter.name})
        inputs = {"prompts": prompts_file, "responses": responses_file}
        hint = (
            "Labels of different judges are not mixed: use another --out, or --restart to set it aside and begin anew"
        )
        run = Run(meta_file(out), "annotate", info.model_dump() | _fixed_date(judge, out), inputs, restart=hint)
        merge_left_over(out, info)
        output = Output(out, responses, info, retry_failed)
        stats = output.stats
        if output.missing or output.failed or not (run.previous and run.previous.status == "complete"):
            answers = (r for r in read_answers(responses_file, Response, prompts) if r.id not in output.written)
            tasks = chain(_tasks_again(output, prompts), _tasks(answers, prompts, splitter))
            _judge_all(tasks, judge, info, output, run)
            run.finish(stats.summary())
    if summary is not None:
        with atomic_write(summary) as file:
            file.write(json.dumps(stats.summary(), indent=2).encode() + b"\n")
    return stats


def _fixed_date(judge: Judge, out: Path) -> dict[str, str]:
    """What the record says of the date in prompts (``fix_date``); a judge of one's own may speak through anything."""
    backend = getattr(judge, "backend", None)
    return fix_date(backend, meta_file(out)) if isinstance(backend, Dated) else {}


def _judge_all(tasks: Iterable[Task], judge: Judge, info: JudgeInfo, output: Output, run: Run) -> None:
    stats, started = output.stats, time.monotonic()
    usage = getattr(judge, "usage", None)
    before = replace(usage) if usage is not None else None
    done = stats.already_there - len(output.failed)
    with progress("annotate", stats.responses, "responses", done) as bar, ExitStack() as files:
        batches = _batches(_judged(tasks, judge, info))
        first = list(islice(batches, 1))  # a judge that cannot work fails here, before anything is written
        run.begin()
        renewals = files.enter_context(output.appender)
        if output.failed:
            renewals = files.enter_context(Appender(retry_file(output.path), Annotation, lambda _: None))
        for batch in chain(first, batches):
            output.write(batch, renewals)
            bar.advance(len(batch), stats.note(started))
    if lost := output.missing + len(output.failed) - stats.run_responses:
        raise UserError(f"{output.path}: {lost:,} answers are missing: the judge {info.name} did not return them")
    output.finish()
    stats.run_seconds = time.monotonic() - started
    stats.run_usage = usage_since(usage, before)


def _check_summary(summary: Path, out: Path) -> None:
    """What could not be written at the end is an error at the start."""
    if summary.resolve() in (out.resolve(), meta_file(out).resolve(), retry_file(out).resolve()):
        raise InputError("is the output, or a file beside it; name another --summary", path=summary)
    if summary.is_dir():
        raise InputError("is a folder, a file is needed", path=summary)
    above = next(folder for folder in summary.parents if folder.exists())
    if not above.is_dir():
        raise InputError(f"cannot be written: {above} is no folder", path=summary)


def _known(prompts_file: Path, responses_file: Path, prompts: dict[str, Prompt], judge: Judge) -> dict[str, Known]:
    """What is kept in mind of every response, by id and in their order. A bad line, or a reference that the judge needs
    and that is not there, is an error before anything is judged."""
    responses = {}
    for response in read_answers(responses_file, Response, prompts):
        responses[response.id] = known(response, prompts[response.prompt_id].id)
    if getattr(judge, "needs_reference", False):
        asked = {response.prompt_id for response in responses.values()}
        without = {key for key in asked if not any(passage.strip() for passage in prompts[key].passages)}
        for item in read_located(prompts_file, Prompt) if without else ():
            if item.record.id in without:
                raise item.error(
                    "reference",
                    f"prompt {item.record.id!r} has no reference, and the {judge.info.name} judge compares with one: "
                    f"add it, or take another judge (prompts without a reference: {len(without):,})",
                )
    return responses


def _tasks_again(output: Output, prompts: dict[str, Prompt]) -> Iterator[Task]:
    """The failed sentences, read from the output itself when their turn comes; what has a verdict is given."""
    if not output.failed:
        return
    for record in islice(read_records(output.path, Annotation), output.at_start):  # behind it this run appends
        if record.id in output.failed:
            output.stats.file.remove(record)
            response = Response(**{name: getattr(record, name) for name in Response.model_fields})
            spans = [Span(sentence.start, sentence.end, sentence.kind) for sentence in failed_of(record)]
            given = tuple(sentence for sentence in record.sentences if sentence.status is Status.OK)
            yield Task(prompts[record.prompt_id], response, spans, given)


def _tasks(responses: Iterable[Response], prompts: dict[str, Prompt], splitter: Splitter) -> Iterator[Task]:
    for response in responses:
        prompt = prompts[response.prompt_id]
        spans = splitter.split(response.response, prompt.language or detect_language(response.response))
        given = tuple(_sentence(span, Verdict(Label.NO_FACT)) for span in spans if span.kind in WITHOUT_CLAIM)
        yield Task(prompt, response, [span for span in spans if span.kind not in WITHOUT_CLAIM], given)


def _judged(tasks: Iterable[Task], judge: Judge, info: JudgeInfo) -> Iterator[Annotation]:
    """What the judge returns, as records. A judge may be anybody's: that it keeps to its protocol is looked at."""
    out: set[str] = set()

    def given_out() -> Iterator[Task]:
        for task in tasks:
            out.add(task.response.id)
            yield task

    for task, verdicts in judge.judge(given_out()):
        answer = task.response.id
        if answer not in out:
            raise UserError(f"the judge {info.name} returned the answer {answer!r} twice, or was never given it")
        out.remove(answer)
        if len(verdicts) != len(task.spans):
            counts = f"{len(verdicts)} verdicts for the {len(task.spans)} sentences of the answer {answer!r}"
            raise UserError(f"the judge {info.name} gave {counts}; one each is needed")
        try:
            yield _annotation(task, verdicts, info)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise UserError(f"the judge {info.name} gave a wrong verdict on the answer {answer!r}: {problem}") from None


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
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - a judge's own as well: out of memory, a bug, sys.exit
            failed = error
            break
        if len(batch) >= FLUSH_RECORDS or time.monotonic() - since >= FLUSH_SECONDS:
            yield batch
            batch, since = [], time.monotonic()
    if batch:
        yield batch
    if failed is not None:
        raise failed
