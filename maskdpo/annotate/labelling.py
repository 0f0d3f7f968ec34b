"""``maskdpo annotate``: split every response, have its sentences judged, append the labels; resumable."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from maskdpo.annotate.deciding import decided, under
from maskdpo.annotate.judge import Judge, Task, Verdict
from maskdpo.annotate.output import (
    AnnotationFile,
    ResponseDigest,
    as_recorded,
    digest_of,
    failed_sentences,
    merge_retry_file,
    retry_file,
)
from maskdpo.annotate.stats import AnnotateStats, usage_since
from maskdpo.console import progress
from maskdpo.errors import InputError, UserError, first_problem
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
from maskdpo.schemas import (
    FAILED,
    WITHOUT_CLAIM,
    Annotation,
    JudgeInfo,
    Kind,
    Label,
    Prompt,
    Response,
    Sentence,
    Span,
    Status,
)
from maskdpo.text import fragment
from maskdpo.text.language import detect_language
from maskdpo.text.splitters import Splitter
from maskdpo.verdicts.decision import Rule

RAW = Rule()
"""The judge's own labels."""

NO_CLAIM, FRAGMENT = Verdict(Label.NO_FACT), Verdict(None, Status.FRAGMENT)
"""Of sentences about which no judge is asked."""

FLUSH_RECORDS, FLUSH_SECONDS = 256, 2.0
"""Finished answers are written and synced when there are this many of them, or after this many seconds."""


def annotate(
    prompts_file: Path,
    responses_file: Path,
    out: Path,
    judge: Judge,
    splitter: Splitter,
    *,
    restart: bool = False,
    retry_failed: bool = False,
    limit: int | None = None,
    summary: Path | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    rule: Rule = RAW,
) -> AnnotateStats:
    """Label every sentence of every response and append the annotations to ``out`` as they come.

    Annotations that ``out`` holds already are kept; a run with another judge, protocol or splitter may not add to them.
    At the end the file has the order of ``responses_file``.

    Args:
        restart: set an earlier output aside and start again.
        retry_failed: judge the sentences of ``out`` that have no verdict again, and no others.
        limit: label only so many responses, the first ones.
        summary: where to write the figures of the run as JSON.
        options: options of the judge and the splitter that ``judge.info`` and the name of the splitter do not contain.
            They are recorded, so that a run with other options does not continue this one.
        rule: how labels follow from verdicts.

    Raises:
        UserError: bad input, an output that may not be continued, or a judge that cannot work.
    """
    refuse_overwriting(out, prompts_file, responses_file)
    if summary is not None:
        refuse_overwriting(summary, prompts_file, responses_file)
        _check_summary(summary, out)
    under(rule, judge.info if restart else as_recorded(judge.info, meta_file(out)))
    prompts = read_prompts(prompts_file)
    responses = _digests(prompts_file, responses_file, prompts, judge, limit)
    with sole_writer(out):
        if restart:
            set_aside(out, meta_file(out), retry_file(out))
        info = under(rule, as_recorded(judge.info, meta_file(out))).model_copy(update={"splitter": splitter.name})
        inputs = {"prompts": prompts_file, "responses": responses_file}
        inputs |= {"calibration": rule.source} if rule.source else {}
        hint = (
            "Labels of different judges are not mixed: use another `out`, or `restart` to set it aside and begin anew"
        )
        decides = info.model_dump() | _fixed_date(judge, out) | dict(options) | {"fragments": fragment.RULE}
        earlier = {"fragments": fragment.RULE}  # their own records tell: ``AnnotationFile.fragments_judged``
        run = Run(meta_file(out), "annotate", decides, inputs, restart=hint, defaults=earlier)
        merge_retry_file(out, info)
        output = AnnotationFile(out, responses, info, retry_failed)
        output.notice_fragments()
        stats = output.stats
        if output.missing or output.failed or not (run.previous and run.previous.status == "complete"):
            every = read_answers(responses_file, Response, prompts, limit)
            answers = (response for response in every if response.id not in output.written)
            tasks = chain(_retry_tasks(output, prompts), _tasks(answers, prompts, splitter))
            _judge_all(tasks, judge, info, rule, output, run)
            run.finish(stats.summary())
    if summary is not None:
        with atomic_write(summary) as file:
            file.write(json.dumps(stats.summary(), indent=2).encode() + b"\n")
    return stats


def stream_annotations(
    prompts: Mapping[str, Prompt],
    responses: Iterable[Response],
    judge: Judge,
    splitter: Splitter,
    *,
    rule: Rule = RAW,
) -> Iterator[Annotation]:
    """The same in memory: annotations in the order in which the judge is done with them.

    Raises:
        UserError: a response to a prompt that is not there, or a judge that cannot work.
    """

    def known() -> Iterator[Response]:
        for response in responses:
            if response.prompt_id not in prompts:
                raise UserError(f"response {response.id!r}: no prompt has the id {response.prompt_id!r}")
            yield response

    info = under(rule, judge.info).model_copy(update={"splitter": splitter.name})
    return _judged(_tasks(known(), prompts, splitter), judge, info, rule)


def _fixed_date(judge: Judge, out: Path) -> dict[str, str]:
    """The date in prompts, for the record of the run (``fix_date``); the backend of a custom judge may be anything."""
    backend = getattr(judge, "backend", None)
    return fix_date(backend, meta_file(out)) if isinstance(backend, Dated) else {}


def _judge_all(
    tasks: Iterable[Task], judge: Judge, info: JudgeInfo, rule: Rule, output: AnnotationFile, run: Run
) -> None:
    stats, started = output.stats, time.monotonic()
    usage = getattr(judge, "usage", None)
    before = replace(usage) if usage is not None else None
    done = stats.already_there - len(output.failed)
    with progress("annotate", stats.responses, "responses", done) as bar, ExitStack() as files:
        batches = _batches(_judged(tasks, judge, info, rule))
        first = list(islice(batches, 1))  # a judge that cannot work fails here, before anything is written
        run.begin()
        retried = files.enter_context(output.appender)
        if output.failed:
            retried = files.enter_context(Appender(retry_file(output.path), Annotation, lambda _: None))
        for batch in chain(first, batches):
            output.write(batch, retried)
            bar.advance(len(batch), stats.note(started))
    if lost := output.missing + len(output.failed) - stats.run_responses:
        raise UserError(f"{output.path}: {lost:,} answers are missing: the judge {info.name} did not return them")
    output.finish()
    stats.run_seconds = time.monotonic() - started
    stats.run_usage = usage_since(usage, before)


def _check_summary(summary: Path, out: Path) -> None:
    """A summary that cannot be written at the end is an error at the start."""
    if summary.resolve() in (out.resolve(), meta_file(out).resolve(), retry_file(out).resolve()):
        raise InputError("is a file that this command writes already; give `summary` another name", path=summary)
    if summary.is_dir():
        raise InputError("is a folder, a file is needed", path=summary)
    above = next(folder for folder in summary.parents if folder.exists())
    if not above.is_dir():
        raise InputError(f"cannot be written: {above} is no folder", path=summary)


def _digests(
    prompts_file: Path, responses_file: Path, prompts: dict[str, Prompt], judge: Judge, limit: int | None
) -> dict[str, ResponseDigest]:
    """What stays in memory of every response, by id and in their order.

    A bad line, and a missing reference where the judge needs one, are errors before anything is judged.
    """
    responses = {}
    for response in read_answers(responses_file, Response, prompts, limit):
        responses[response.id] = digest_of(response, prompts[response.prompt_id].id)
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


def _retry_tasks(output: AnnotationFile, prompts: dict[str, Prompt]) -> Iterator[Task]:
    """Tasks for the failed sentences, read from the output one by one; sentences that have a verdict are ``given``."""
    if not output.failed:
        return
    for record in islice(read_records(output.path, Annotation), output.at_start):  # this run appends behind them
        if record.id in output.failed:
            output.stats.file.remove(record)
            response = Response(**{name: getattr(record, name) for name in Response.model_fields})
            spans = [Span(sentence.start, sentence.end, sentence.kind) for sentence in failed_sentences(record)]
            given = tuple(sentence for sentence in record.sentences if sentence.status not in FAILED)
            yield Task(prompts[record.prompt_id], response, spans, given)


def _tasks(responses: Iterable[Response], prompts: Mapping[str, Prompt], splitter: Splitter) -> Iterator[Task]:
    for response in responses:
        prompt = prompts[response.prompt_id]
        spans = splitter.split(response.response, prompt.language or detect_language(response.response))
        _check_spans(spans, response, splitter)
        spans = fragment.set_apart(spans, response.response, response.finish_reason)
        known = dict.fromkeys(WITHOUT_CLAIM, NO_CLAIM) | {Kind.FRAGMENT: FRAGMENT}
        given = tuple(_sentence(span, known[span.kind]) for span in spans if span.kind in known)
        yield Task(prompt, response, [span for span in spans if span.kind not in known], given)


def _check_spans(spans: Sequence[Span], response: Response, splitter: Splitter) -> None:
    """A custom splitter may not keep to the interface."""
    end = 0
    for span in spans:
        if not isinstance(span, Span) or not end <= span.start < span.end <= len(response.response):
            raise UserError(
                f"the splitter {splitter.name} gave {span!r} for the answer {response.id!r}; spans must be of the type "
                "maskdpo.schemas.Span, in order, not empty, not overlapping, and within the text"
            )
        end = span.end


def _judged(tasks: Iterable[Task], judge: Judge, info: JudgeInfo, rule: Rule) -> Iterator[Annotation]:
    """What the judge returns, as records. A custom judge may not keep to the interface, so every task is checked."""
    open_tasks: set[str] = set()

    def noted() -> Iterator[Task]:
        for task in tasks:
            open_tasks.add(task.response.id)
            yield task

    for task, verdicts in judge.judge(noted()):
        answer = task.response.id
        if answer not in open_tasks:
            raise UserError(
                f"the judge {info.name} returned the answer {answer!r} twice, or an answer that it was not given"
            )
        open_tasks.remove(answer)
        if len(verdicts) != len(task.spans):
            counts = f"{len(verdicts)} verdicts for the {len(task.spans)} sentences of the answer {answer!r}"
            raise UserError(f"the judge {info.name} gave {counts}; a judge must give one verdict per sentence")
        if wrong := [verdict for verdict in verdicts if not isinstance(verdict, Verdict)]:
            raise UserError(f"the judge {info.name} gave {wrong[0]!r} on the answer {answer!r}; a Verdict is needed")
        try:
            yield _annotation(task, verdicts, info, rule)
        except ValidationError as error:
            _, problem = first_problem(error)
            raise UserError(f"the judge {info.name} gave a wrong verdict on the answer {answer!r}: {problem}") from None


def _annotation(task: Task, verdicts: list[Verdict], info: JudgeInfo, rule: Rule) -> Annotation:
    judged = [decided(_sentence(span, verdict), rule) for span, verdict in zip(task.spans, verdicts, strict=True)]
    sentences = sorted([*judged, *task.given], key=lambda sentence: sentence.start)
    return Annotation(**dict(task.response), sentences=sentences, judge=info)


def _sentence(span: Span, verdict: Verdict) -> Sentence:
    return Sentence(**span._asdict(), **asdict(verdict))


def _batches(annotations: Iterable[Annotation]) -> Iterator[list[Annotation]]:
    """Group the annotations. Whatever stops the run, the last group is still written."""
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
        except BaseException as error:  # noqa: BLE001 - of any judge: out of memory, a bug, sys.exit
            failed = error
            break
        if len(batch) >= FLUSH_RECORDS or time.monotonic() - since >= FLUSH_SECONDS:
            yield batch
            batch, since = [], time.monotonic()
    if batch:
        yield batch
    if failed is not None:
        raise failed
