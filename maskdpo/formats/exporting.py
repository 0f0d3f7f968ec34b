"""``maskdpo export``: whole files in other formats, record by record, written atomically."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from maskdpo.errors import InputError, UserError
from maskdpo.formats.argilla import to_argilla
from maskdpo.formats.label_studio import CONFIG, to_label_studio
from maskdpo.formats.paper import to_paper
from maskdpo.formats.trl import to_trl
from maskdpo.io import (
    atomic_write,
    read_answers,
    read_prompts,
    read_records,
    record_type,
    refuse_overwriting,
    with_config,
)
from maskdpo.registry import Registry, named_in
from maskdpo.run_record import meta_file, refuse_replacing
from maskdpo.schemas import Annotation, FileRecord, Pair, Prompt
from maskdpo.settings import Option, OptionalPrompts, Settings
from maskdpo.stage_run import Run


class FromPairs(NamedTuple):
    """A format of preference data: JSON lines, one per pair."""

    row: Callable[[Pair], dict[str, Any]]


class FromAnnotations(NamedTuple):
    """A format of an annotation tool: one JSON list, as the tool's import takes it."""

    row: Callable[[Annotation, Prompt], dict[str, Any]]


EXPORTS: Registry[FromPairs | FromAnnotations] = Registry(
    "format",
    {
        "trl": FromPairs(to_trl),
        "mask-dpo-paper": FromPairs(to_paper),
        "label-studio": FromAnnotations(to_label_studio),
        "argilla": FromAnnotations(to_argilla),
    },
    check=lambda found: None if isinstance(found, FromPairs | FromAnnotations) else "is no format to export to",
)


class ExportSettings(Settings):
    """What ``maskdpo export`` can be told."""

    file: Annotated[Path, Option("Pair or annotation records (JSONL, Parquet, a dataset).", argument=True)]
    format: Annotated[
        str,
        named_in("maskdpo.formats.exporting:EXPORTS"),
        Option(
            "From pairs: `trl` (prompt, chosen, rejected), `mask-dpo-paper` (the training data of the paper's code). "
            "From annotations, with --prompts: `label-studio`, `argilla`. Or a format of your own."
        ),
    ]
    out: Annotated[
        Path, Option("The file to write; for Label Studio the labelling interface goes to NAME.xml beside it.")
    ]
    prompts: OptionalPrompts = None


@dataclass
class ExportStats:
    """What was written."""

    records: int = 0
    plain: int = 0
    """Pairs of plain strings (``--raw``)."""
    not_judged: int = 0
    """Sentences without a verdict."""


def export_file(file: Path, out: Path, to: str, prompts_file: Path | None = None) -> ExportStats:
    """Write pairs or, with their prompts, annotations in another tool's format.

    For Label Studio the labelling interface goes to ``config_file(out)``.

    Raises:
        UserError: bad input, or a format of annotations without ``prompts_file``.
    """
    _check_outputs(out, to, file, prompts_file)
    exporter = EXPORTS[to]
    from_pairs = isinstance(exporter, FromPairs)
    file = with_config(file, "pairs" if from_pairs else "annotations")
    wanted = Pair if from_pairs else Annotation
    if (found := record_type(file)) is not wanted:
        raise InputError(f"holds {_named(found)}, but `format` {to} is made of {_named(wanted)}", path=file)
    stats = ExportStats()
    if isinstance(exporter, FromPairs):
        write_lines(out, (exporter.row(pair) for pair in _counted_pairs(file, stats)))
    elif prompts_file is None:
        raise UserError(f"`format` {to} needs `prompts`: it shows the question and the reference beside the answer")
    else:
        prompts = read_prompts(prompts_file)
        annotations = _counted_annotations(file, prompts, stats)
        write_list(out, (exporter.row(annotation, prompts[annotation.prompt_id]) for annotation in annotations))
    if to == "label-studio":
        with atomic_write(config_file(out)) as handle:
            handle.write(CONFIG.encode())
    record_run(out, "export", to, {"prompts": prompts_file, "records": file}, vars(stats))
    return stats


def _check_outputs(out: Path, to: str, *inputs: Path | None) -> None:
    refuse_overwriting(out, *inputs)
    refuse_replacing(out, "export")
    if out.suffix == ".parquet":
        raise InputError("is named as Parquet, but export writes JSON; name another `out`", path=out)
    if to == "label-studio":
        if out.suffix.lower() == ".xml":
            raise InputError("is where the labelling interface goes; name the tasks .json", path=out)
        refuse_overwriting(config_file(out), *inputs)


def _named(kind: type[FileRecord]) -> str:
    return f"{kind.__name__.lower()} records"


def config_file(out: Path) -> Path:
    """Where the labelling interface of Label Studio goes."""
    return out.with_suffix(".xml")


def _counted_pairs(file: Path, stats: ExportStats) -> Iterator[Pair]:
    for pair in read_records(file, Pair):
        stats.records += 1
        stats.plain += isinstance(pair.prompt, str)
        stats.not_judged += sum(s.label is None for s in (*pair.chosen_sentences, *pair.rejected_sentences))
        yield pair


def _counted_annotations(file: Path, prompts: dict[str, Prompt], stats: ExportStats) -> Iterator[Annotation]:
    for annotation in read_answers(file, Annotation, prompts):
        stats.records += 1
        stats.not_judged += annotation.counts.not_judged
        yield annotation


def write_lines(out: Path, rows: Iterable[dict[str, Any]]) -> None:
    """JSON lines."""
    with atomic_write(out) as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def write_list(out: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One JSON list, one element per line."""
    with atomic_write(out) as handle:
        begin = b"[\n"
        for row in rows:
            handle.write(begin + json.dumps(row).encode())
            begin = b",\n"
        handle.write(b"\n]\n")


def record_run(
    out: Path, command: str, name: str, inputs: dict[str, Path | None], counts: dict[str, Any], **options: Any
) -> None:
    """Write the run record for ``lineage``. It replaces an earlier one, because the output was replaced."""
    meta_file(out).unlink(missing_ok=True)
    given = {role: path for role, path in inputs.items() if path is not None}
    Run(meta_file(out), command, {"format": name, **options}, given, restart="").finish(counts)
