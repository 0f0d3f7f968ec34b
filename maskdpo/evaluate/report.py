"""``maskdpo report``: an HTML page for a file of records or for a training."""

from pathlib import Path

from maskdpo.errors import InputError, UserError
from maskdpo.evaluate import values
from maskdpo.evaluate.evaluation import evaluate_files
from maskdpo.evaluate.page import PageStats, write_page, write_pairs_page
from maskdpo.evaluate.settings import EvaluateSettings, ReportSettings
from maskdpo.evaluate.training import FILES, TrainingStats, training_folder, write_training_page
from maskdpo.io import CONFIGS, read_prompts, read_records, record_type, refuse_overwriting
from maskdpo.run_record import refuse_replacing
from maskdpo.schemas import Annotation, Pair
from maskdpo.schemas.training import METRICS, TrainedTokens


def write_report(settings: ReportSettings, tokens: TrainedTokens | None = None) -> PageStats | TrainingStats:
    """Write the page for an annotations file, for two of them (before and after), for a pairs file, or for a training.

    Args:
        tokens: which characters of the answers of a pair train; without it sentences are marked by their labels.
    """
    file, out, title = settings.annotations, settings.out, settings.title
    compare, prompts, gold = settings.compare, settings.prompts, settings.gold
    last = compare[-1] if compare else None
    refuse_overwriting(out, file, *compare, *settings.side_effects, prompts, gold)
    refuse_replacing(out)
    if training := training_folder(file):
        if prompts or gold or tokens or settings.labels or settings.side_effects:
            message = "is a training: `prompts`, `gold`, `labels`, `model` and `side_effects` are for answers and pairs"
            raise InputError(message, path=file)
        folders = [training, *_other_training(compare)]
        refuse_overwriting(out, *(folder / name for folder in folders for name in FILES))
        return write_training_page(out, folders, title=title)
    if file.is_dir() and not any((file / config).is_dir() for config in CONFIGS):
        raise InputError(f"is a folder, a file is needed, or the folder of a training with its {METRICS}", path=file)
    prompts_by_id = read_prompts(prompts) if prompts else None
    kind = record_type(file)
    if kind is Pair:
        if compare or gold or settings.labels or settings.side_effects:
            raise InputError(
                "is a pairs file: `compare` and `gold` take annotations, and `labels` and `side_effects` go with them",
                path=file,
            )
        pairs = read_records(file, Pair)
        return write_pairs_page(out, pairs, title=title or file.stem, prompts=prompts_by_id, tokens=tokens)
    if kind is not Annotation:
        raise InputError(
            f"holds {kind.__name__.lower()} records; report takes annotations, pairs or a training", path=file
        )
    if tokens:
        raise InputError("holds annotations: `model` is for pairs, to mark the tokens that train", path=file)
    evaluated = EvaluateSettings(
        annotations=(file,),
        prompts=prompts,
        gold=gold,
        gold_drawn=settings.gold_drawn,
        compare=compare,
        labels=settings.labels,
        side_effects=settings.side_effects,
    )
    evaluation = evaluate_files(evaluated)
    return write_page(
        out,
        read_records(file, Annotation),
        title=title or (f"{file.stem} -> {last.stem}" if last else file.stem),
        prompts=prompts_by_id,
        compare=read_records(last, Annotation) if last else None,
        gold={record.id: record for record in read_records(gold, Annotation)} if gold else None,
        summary=evaluation.tables(),
        by_file=values.of_main_figures(evaluation.main_figures()) if len(compare) > 1 else None,
    )


def _other_training(compare: tuple[Path, ...]) -> list[Path]:
    if not compare:
        return []
    if len(compare) > 1:
        raise UserError("a training is compared with one other: give `compare` once")
    folder = training_folder(compare[0])
    if folder is None:
        message = f"is no training: it has no {METRICS}, and a training is compared with another"
        raise InputError(message, path=compare[0])
    return [folder]
