"""Figures and pages: ``evaluate`` and ``report``."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from maskdpo.api.given import files_given
from maskdpo.io.memory import File, as_files
from maskdpo.schemas import Annotation, Pair, Prompt
from maskdpo.settings_reading import load_settings

if TYPE_CHECKING:
    from maskdpo.evaluate.outcome import Evaluation
    from maskdpo.evaluate.page import PageStats
    from maskdpo.evaluate.training import TrainingStats


def evaluate_annotations(
    annotations: File | Sequence[File] | Iterable[Annotation],
    *,
    prompts: File | Iterable[Prompt] | None = None,
    gold: File | Iterable[Annotation] | None = None,
    gold_drawn: str = "recorded",
    compare: File | Sequence[File] | Iterable[Annotation] | None = None,
    labels: Sequence[str] = (),
    compare_gold: File | Iterable[Annotation] | None = None,
    side_effects: File | Sequence[File] = (),
    length_penalty: int | None = None,
    limit: int | None = None,
) -> "Evaluation":
    """Count right, wrong, no-fact and not-judged sentences per answer: ``maskdpo evaluate``.

    Args:
        annotations: a path, several paths, or records.
        prompts: for the topics, over which the intervals are.
        gold: annotations with human labels, with which the labels are compared.
        gold_drawn: how they were drawn, for prediction-powered estimates: ``recorded``, with the probability in
            ``inclusion`` of each sentence, or ``random``, all with the same probability.
        compare: annotations of another model (after), to set beside these (before): a path, or records; or several
            paths, to compare more models in one table, and each further one with the first of them in another.
        labels: what plots, and the table of several files, call ``annotations`` and each of ``compare``.
        compare_gold: human labels of ``compare``; without it those of ``gold``, by id and text.
        side_effects: files of ``measure_side_effects``, to show beside the factuality.
        limit: read only so many annotations, the first ones.
        length_penalty: gamma of FActScore's precision (arXiv 2305.14251); None leaves the figure out.

    Returns:
        ``tables()`` to print; ``summary``, ``comparison``, ``agreement`` and ``powered`` have the figures as numbers.
    """
    from maskdpo.evaluate.evaluation import evaluate_files
    from maskdpo.evaluate.settings import EvaluateSettings

    with (
        files_given(annotations, Annotation, name="annotations") as labelled,
        nullcontext(()) if compare is None else files_given(compare, Annotation, name="compare") as after,
        as_files(
            prompts=(prompts, Prompt),
            gold=(gold, Annotation),
            compare_gold=(compare_gold, Annotation),
        ) as files,
    ):
        given: dict[str, Any] = {"gold_drawn": gold_drawn, "length_penalty": length_penalty, "limit": limit}
        given |= {"annotations": labelled, "compare": after, "labels": labels, "side_effects": side_effects, **files}
        return evaluate_files(load_settings(EvaluateSettings, given))


def write_report(
    records: File | Iterable[Annotation] | Iterable[Pair],
    out: File,
    *,
    prompts: File | Iterable[Prompt] | None = None,
    gold: File | Iterable[Annotation] | None = None,
    gold_drawn: str = "recorded",
    compare: File | Sequence[File] | Iterable[Annotation] | None = None,
    labels: Sequence[str] = (),
    side_effects: File | Sequence[File] = (),
    model: str | None = None,
    method: str = "mask-dpo",
    title: str | None = None,
) -> "PageStats | TrainingStats":
    """Write one self-contained HTML page: ``maskdpo report``.

    Args:
        records: annotations or pairs, or the path of a training: its folder, or its metrics.jsonl.
        gold_drawn: as for ``evaluate_annotations``.
        compare: annotations of another model, or another training; or several paths of annotations, of which tables
            and a plot show all, while the answers of the last stand beside these.
        labels: as for ``evaluate_annotations``.
        side_effects: as for ``evaluate_annotations``.
        model: for pairs: mark the very tokens that train with the tokenizer of this model.
    """
    from maskdpo.evaluate.report import write_report as write
    from maskdpo.evaluate.settings import ReportSettings

    tokens = None
    if model is not None:
        from maskdpo.train.data.trained_tokens import trained_tokens

        tokens = trained_tokens(model, method)
    with (
        nullcontext(()) if compare is None else files_given(compare, Annotation, name="compare") as after,
        as_files(
            annotations=(records, Annotation, Pair),
            prompts=(prompts, Prompt),
            gold=(gold, Annotation),
        ) as files,
    ):
        given = {"out": out, "gold_drawn": gold_drawn, "title": title, "compare": after, "labels": labels}
        return write(load_settings(ReportSettings, {**files, **given, "side_effects": side_effects}), tokens)
