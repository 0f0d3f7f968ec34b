"""From answers to labels: ``annotate``, ``merge``, ``calibrate`` and ``relabel``."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from maskdpo.api.given import files_given, no_dry_run, paths_given, records_given
from maskdpo.errors import UserError
from maskdpo.io.memory import File, as_file, as_files, kept_as_file
from maskdpo.schemas import Annotation, Prompt, Response
from maskdpo.settings_reading import load_settings

if TYPE_CHECKING:
    from maskdpo.annotate.judge import Judge
    from maskdpo.annotate.relabel import RelabelStats
    from maskdpo.annotate.stats import AnnotateStats
    from maskdpo.merge.merge import MergeStats
    from maskdpo.text.splitters import Splitter
    from maskdpo.verdicts.decision import Calibration


@overload
def annotate_responses(
    prompts: File | Iterable[Prompt],
    responses: File | Sequence[File] | Iterable[Response],
    *,
    judge: "str | Judge",
    splitter: "str | Splitter" = "markdown",
    out: None = None,
    **settings: Any,
) -> Iterator[Annotation]: ...
@overload
def annotate_responses(
    prompts: File | Iterable[Prompt],
    responses: File | Sequence[File] | Iterable[Response],
    *,
    judge: "str | Judge",
    splitter: "str | Splitter" = "markdown",
    out: File,
    **settings: Any,
) -> "AnnotateStats": ...
def annotate_responses(
    prompts: File | Iterable[Prompt],
    responses: File | Sequence[File] | Iterable[Response],
    *,
    judge: "str | Judge",
    splitter: "str | Splitter" = "markdown",
    out: File | None = None,
    **settings: Any,
) -> "Iterator[Annotation] | AnnotateStats":
    """Split every answer into sentences and have each labelled against the reference: ``maskdpo annotate``.

    Args:
        responses: a path, several paths, or records.
        judge: a name, or a judge that is there already.
        splitter: a name, or a splitter that is there already.
        out: annotation records, appended as they come; the same call continues an interrupted run.
        settings: of ``annotate.settings.AnnotateSettings``, such as ``model``, ``protocol`` or ``retry_failed``.

    Returns:
        What the run did; without ``out`` the annotations, in the order in which the judge is done with them.
    """
    from maskdpo.annotate.deciding import read_rule
    from maskdpo.annotate.judged import stream_annotations
    from maskdpo.annotate.labelling import annotate
    from maskdpo.annotate.settings import AnnotateSettings
    from maskdpo.shard import in_shard

    names = {
        "judge": judge if isinstance(judge, str) else "lexical",
        "splitter": splitter if isinstance(splitter, str) else "markdown",
    }
    if out is None or not paths_given(responses):
        responses = list(records_given(responses, Response))
    with files_given(responses, Response, name="responses") as read:  # a splitter may learn from them
        given = {"prompts": "-", "responses": read, "out": out or "-", **names, **settings}
        loaded = load_settings(AnnotateSettings, given)
        no_dry_run(loaded.dry_run, "annotate")
        made = loaded.make_judge() if isinstance(judge, str) else judge
        cut = loaded.make_splitter() if isinstance(splitter, str) else splitter
    rule = read_rule(loaded.calibration, loaded.min_confidence)
    if out is None:
        if loaded.summary or loaded.retry_failed or loaded.restart:
            raise UserError("`summary`, `retry_failed` and `restart` go with `out`")
        known = {prompt.id: prompt for prompt in records_given(prompts, Prompt)}
        answers = in_shard(
            islice(records_given(responses, Response), loaded.limit), loaded.shard, lambda one: one.prompt_id
        )
        return stream_annotations(known, answers, made, cut, rule=rule, missing_reference=loaded.missing_reference)
    return annotate(
        kept_as_file(prompts, Prompt, Path(f"{out}.prompts.jsonl")),
        paths_given(responses) or kept_as_file(cast(Any, responses), Response, Path(f"{out}.responses.jsonl")),
        Path(out),
        made,
        cut,
        restart=loaded.restart,
        retry_failed=loaded.retry_failed,
        limit=loaded.limit,
        shard=loaded.shard,
        summary=loaded.summary,
        options=loaded.own_options(),
        rule=rule,
        missing_reference=loaded.missing_reference,
    )


def merge_outputs(parts: Sequence[File], *, out: File) -> "MergeStats":
    """Put the outputs of all parts of one run together: ``maskdpo merge``.

    Args:
        parts: what ``sample_responses`` or ``annotate_responses`` have written with ``shard``, in any order.
        out: the records in the order of the input, as one run would have written them, and its record.
    """
    from maskdpo.merge.merge import MergeSettings, merge

    loaded = load_settings(MergeSettings, {"parts": parts, "out": out})
    return merge(loaded.parts, loaded.out)


def calibrate_annotations(
    annotations: File | Iterable[Annotation],
    *,
    gold: File | Iterable[Annotation],
    out: File | None = None,
    prompts: File | Iterable[Prompt] | None = None,
    **settings: Any,
) -> "Calibration":
    """Fit what turns the scores of a judge into labels to gold labels: ``maskdpo calibrate``.

    Args:
        gold: annotations with human labels of some of the answers.
        out: the calibration as a file (JSON), for ``annotate_responses`` and ``relabel_annotations``.
        prompts: for the topics, over which the figures are cross-validated.
        settings: of ``calibrate.settings.CalibrateSettings``, such as ``aim`` or ``abstain``.

    Returns:
        The calibration, with its figures ``before`` and, on ``held_out`` topics, after.
    """
    from maskdpo.calibrate.calibrate import calibrate
    from maskdpo.calibrate.settings import CalibrateSettings

    with (
        as_files(annotations=(annotations, Annotation), gold=(gold, Annotation), prompts=(prompts, Prompt)) as files,
        tempfile.TemporaryDirectory() as folder,
    ):
        written = Path(folder) / "calibration.json" if out is None else out
        return calibrate(load_settings(CalibrateSettings, {**files, "out": written, **settings})).calibration


@overload
def relabel_annotations(
    annotations: File | Iterable[Annotation], *, out: None = None, **settings: Any
) -> Iterator[Annotation]: ...
@overload
def relabel_annotations(annotations: File | Iterable[Annotation], *, out: File, **settings: Any) -> "RelabelStats": ...
def relabel_annotations(
    annotations: File | Iterable[Annotation], *, out: File | None = None, **settings: Any
) -> "Iterator[Annotation] | RelabelStats":
    """Decide labels anew from the scores that annotations hold: ``maskdpo relabel``. No judge is asked.

    Args:
        out: annotation records.
        settings: of ``annotate.settings.RelabelSettings``: ``calibration`` (a file, or what ``calibrate_annotations``
            has returned), ``min_confidence`` and ``summary``.

    Returns:
        What has changed; without ``out`` the annotations.
    """
    from maskdpo.annotate.deciding import read_rule
    from maskdpo.annotate.relabel import relabel, stream_relabelled
    from maskdpo.annotate.settings import RelabelSettings
    from maskdpo.verdicts.decision import Calibration, Rule

    made = settings.pop("calibration") if isinstance(settings.get("calibration"), Calibration) else None
    loaded = load_settings(RelabelSettings, {"annotations": "-", "out": out or "-", **settings})
    rule = Rule(made, loaded.min_confidence) if made else read_rule(loaded.calibration, loaded.min_confidence)
    if out is None:
        if loaded.summary:
            raise UserError("`summary` goes with `out`")
        return stream_relabelled(records_given(annotations, Annotation), rule)
    with as_file(annotations, Annotation, name="annotations") as file:
        return relabel(file, Path(out), rule, summary=loaded.summary)
