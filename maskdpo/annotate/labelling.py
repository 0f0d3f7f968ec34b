"""``maskdpo annotate``: split every response, have its sentences judged, append the labels; resumable."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from maskdpo.annotate.deciding import RAW, under
from maskdpo.annotate.judge import Judge, MissingReference, Task
from maskdpo.annotate.judged import judged_annotations, record_of_answer, with_commit
from maskdpo.annotate.output import (
    AnnotationFile,
    ResponseDigest,
    as_recorded,
    digest_of,
    merge_retry_file,
    retry_file,
)
from maskdpo.annotate.stats import AnnotateStats, usage_since
from maskdpo.annotate.tasks import (
    refuse_missing_reference,
    retry_tasks,
    tasks_of,
    unasked,
    without_reference,
)
from maskdpo.annotate.work import AnnotateWork
from maskdpo.backends.price import account
from maskdpo.console import counted, progress, warn
from maskdpo.errors import InputError, UserError
from maskdpo.io import (
    Appender,
    Input,
    atomic_write,
    files_of,
    read_answers,
    read_prompts,
    refuse_overwriting,
)
from maskdpo.io.lock import sole_writer
from maskdpo.prompt_date import Dated, fix_date
from maskdpo.run_inputs import refuse_other_part
from maskdpo.run_record import meta_file
from maskdpo.schemas import (
    Annotation,
    JudgeInfo,
    Prompt,
    Response,
)
from maskdpo.shard import Shard, in_shard
from maskdpo.stage_run import Run, begun_anew, by_role
from maskdpo.text import fragment
from maskdpo.text.splitters import Splitter
from maskdpo.verdicts.decision import Rule

FLUSH_RECORDS, FLUSH_SECONDS = 256, 2.0
"""Finished answers are written and synced when there are this many of them, or after this many seconds."""


def annotate(
    prompts_file: Path,
    responses_files: Input,
    out: Path,
    judge: Judge,
    splitter: Splitter,
    *,
    restart: bool = False,
    retry_failed: bool = False,
    limit: int | None = None,
    shard: Shard | None = None,
    summary: Path | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    rule: Rule = RAW,
    missing_reference: MissingReference = "fail",
) -> AnnotateStats:
    """Label every sentence of every response and append the annotations to ``out`` as they come.

    Annotations that ``out`` holds already are kept; a run with another judge, protocol or splitter may not add to them.
    At the end the file has the order of ``responses_files``.

    Args:
        restart: set an earlier output aside and start again.
        retry_failed: judge the sentences of ``out`` that have no verdict again, and no others.
        limit: label only so many responses, the first ones.
        shard: label only the answers to prompts of this part, which may be none.
        summary: where to write the figures of the run as JSON.
        options: options of the judge and the splitter that ``judge.info`` and the name of the splitter do not contain.
            They are recorded, so that a run with other options does not continue this one.
        rule: how labels follow from verdicts.
        missing_reference: where the judge compares with a reference and a prompt has none: ``skip`` gives the sentences
            of its answers the status ``no_reference``, ``fail`` is an error before anything is judged.

    Raises:
        UserError: bad input, an output that may not be continued, or a judge that cannot work.
    """
    files = files_of(responses_files)
    refuse_overwriting(out, prompts_file, *files)
    if summary is not None:
        refuse_overwriting(summary, prompts_file, *files)
        _check_summary(summary, out)
    refuse_other_part(files, shard)
    under(rule, judge.info if restart else as_recorded(judge.info, meta_file(out)))
    prompts = read_prompts(prompts_file)
    responses = _digests(files, prompts, limit, shard)
    asked = {response.prompt_id for response in responses.values()}
    skipped = without_reference(judge, prompts, asked)
    if missing_reference == "fail":
        refuse_missing_reference(skipped, len(asked), judge, prompts_file)
    with sole_writer(out), begun_anew(out, meta_file(out), retry_file(out), restart=restart):
        info = under(rule, as_recorded(judge.info, meta_file(out))).model_copy(update={"splitter": splitter.name})
        inputs = {"prompts": prompts_file, **by_role("responses", files)}
        inputs |= {"calibration": rule.source} if rule.source else {}
        hint = (
            "Labels of different judges are not mixed: use another `out`, or `restart` to set it aside and begin anew"
        )
        decides = info.model_dump() | _fixed_date(judge, out) | dict(options) | {"fragments": fragment.RULE}
        decides |= {"shard": str(shard)} if shard else {}
        earlier = {"fragments": fragment.RULE}  # their own records tell: ``AnnotationFile.fragments_judged``
        run = Run(meta_file(out), "annotate", decides, inputs, restart=hint, defaults=earlier)
        merge_retry_file(out, info)
        languages = {prompt.id: prompt.language for prompt in prompts.values() if prompt.language}
        output = AnnotationFile(out, responses, info, retry_failed=retry_failed, skipped=skipped, languages=languages)
        output.notice_fragments()
        run.warn_of_changed_inputs()
        stats = output.stats
        # the record of a part also says that nothing of a grown input is in it
        if output.missing or output.failed or not run.is_complete or (shard and run.inputs_changed):

            def known() -> JudgeInfo:
                """A judge that is new here knows the commit of its model only when it has fetched it."""
                return info if run.previous or output.at_start else with_commit(info, judge)

            def tasks(of_skipped: bool) -> Iterator[Task]:
                answers = read_answers(files, Response, prompts, limit, may_be_empty=shard is not None)
                missing = (r for r in answers if r.id in responses and r.id not in output.written)
                wanted = (r for r in missing if (r.prompt_id in skipped) == of_skipped)
                return tasks_of(wanted, prompts, splitter)

            judged = judged_annotations(chain(retry_tasks(output, prompts), tasks(False)), judge, known, rule)
            without = (record_of_answer(*result, known(), rule) for result in unasked(tasks(True) if skipped else ()))
            _judge_all(chain(judged, without), judge, known, output, run, AnnotateWork(output, skipped))
            run.finish(stats.summary())
    if summary is not None:
        with atomic_write(summary) as file:
            file.write(json.dumps(stats.summary(), indent=2).encode() + b"\n")
    return stats


def _fixed_date(judge: Judge, out: Path) -> dict[str, str]:
    """The date in prompts, for the record of the run (``fix_date``); the backend of a custom judge may be anything."""
    backend = getattr(judge, "backend", None)
    return fix_date(backend, meta_file(out)) if isinstance(backend, Dated) else {}


def _judge_all(
    annotations: Iterator[Annotation],
    judge: Judge,
    known: Callable[[], JudgeInfo],
    output: AnnotationFile,
    run: Run,
    work: AnnotateWork,
) -> None:
    stats, started = output.stats, time.monotonic()
    usage = getattr(judge, "usage", None)
    before = replace(usage) if usage is not None else None
    done = stats.already_there - len(output.failed)
    with (
        progress("annotate", stats.responses, "responses", done, work=work.total) as bar,
        work.heard_from(judge, bar),
        account(getattr(judge, "backend", None), run) as spending,
        ExitStack() as files,
    ):
        batches = _batches(annotations)
        first = list(islice(batches, 1))  # a judge that cannot work fails here, before anything is written
        run.begin({"revision": known().revision})
        retried = files.enter_context(output.appender)
        if output.failed:
            retried = files.enter_context(Appender(retry_file(output.path), Annotation, lambda _: None))
        for batch in chain(first, batches):
            output.write(batch, retried)
            bar.advance(len(batch), stats.note(started) + spending.text, work.of_finished(batch))
    if lost := output.missing + len(output.failed) - stats.run_responses:
        missing = counted(lost, "answer is", "answers are")
        raise UserError(f"{output.path}: {missing} missing, which the judge {judge.info.name} did not return")
    output.finish()
    stats.run_seconds = time.monotonic() - started
    stats.run_usage, stats.run_cost = usage_since(usage, before), spending.cost


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
    files: Sequence[Path], prompts: dict[str, Prompt], limit: int | None, shard: Shard | None
) -> dict[str, ResponseDigest]:
    """What stays in memory of every response, by id and in their order; a bad line is an error."""
    digests, reasoned = dict[str, ResponseDigest](), 0
    answers = read_answers(files, Response, prompts, limit, may_be_empty=shard is not None)
    for response in in_shard(answers, shard, lambda answer: answer.prompt_id):
        digests[response.id] = digest_of(response, prompts[response.prompt_id].id)
        reasoned += response.response.lstrip().startswith("<think>")
    if reasoned:
        where, begin = ", ".join(map(str, files)), counted(reasoned, "answer begins", "answers begin")
        warn(
            f"{where}: {begin} with <think>; such reasoning is judged as a part of the answer: `reasoning` is the "
            "field for what stands between <think> and </think> (docs/records.md#reasoning)"
        )
    return digests


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
