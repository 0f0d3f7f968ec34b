"""``maskdpo export`` and ``import``: whole files, record by record, written atomically."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from maskdpo.errors import InputError, UserError, first_problem
from maskdpo.formats.anah import AnswerRow, DocumentRow, to_prompt, to_response
from maskdpo.formats.argilla import to_argilla
from maskdpo.formats.claims import ClaimRow, claim_annotation, claim_prompt
from maskdpo.formats.label_studio import CONFIG, to_label_studio
from maskdpo.formats.paper import PaperRow, from_paper, to_paper
from maskdpo.formats.trl import to_trl
from maskdpo.io import (
    atomic_write,
    open_input,
    read_answers,
    read_prompts,
    read_records,
    record_type,
    record_writer,
    refuse_overwriting,
    with_config,
    write_records,
)
from maskdpo.io.read import BOM
from maskdpo.registry import Registry, named_in
from maskdpo.run_record import Run, meta_file, refuse_replacing
from maskdpo.schemas import Annotation, FileRecord, Pair, Prompt
from maskdpo.settings import Option, OptionalPrompts, Settings


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


class Reader(NamedTuple):
    """How a row of another format is validated, and converted to a record."""

    row: type[BaseModel]
    convert: Callable[[Any, int], FileRecord]
    prompt: Callable[[Any, int], Prompt] | None = None
    """The prompt of a row that brings its own; these go to ``prompts_file(out)``."""


IMPORTS: Registry[Mapping[str, Reader]] = Registry(
    "format",
    {
        "mask-dpo-paper": {"chosen": Reader(PaperRow, from_paper)},
        "claims": {"sentence": Reader(ClaimRow, claim_annotation, claim_prompt)},
        "anah": {"document": Reader(DocumentRow, to_prompt), "response": Reader(AnswerRow, to_response)},
    },
    check=lambda found: None if isinstance(found, Mapping) else "is no format to import from",
)
"""By format, readers by the field that tells its kinds of rows apart."""


class ExportSettings(Settings):
    """What ``maskdpo export`` can be told."""

    file: Annotated[Path, Option("Pair or annotation records (JSONL, Parquet, a dataset).", argument=True)]
    format: Annotated[
        str,
        named_in("maskdpo.formats.transfer:EXPORTS"),
        Option(
            "From pairs: `trl` (prompt, chosen, rejected), `mask-dpo-paper` (the training data of the paper's code). "
            "From annotations, with --prompts: `label-studio`, `argilla`. Or a format of your own."
        ),
    ]
    out: Annotated[
        Path, Option("The file to write; for Label Studio the labelling interface goes to NAME.xml beside it.")
    ]
    prompts: OptionalPrompts = None


class ImportSettings(Settings):
    """What ``maskdpo import`` can be told."""

    file: Annotated[Path, Option("The file in the other format (JSONL).", argument=True)]
    format: Annotated[
        str,
        named_in("maskdpo.formats.transfer:IMPORTS"),
        Option(
            "`mask-dpo-paper`: training data of the paper's code, to pairs. `anah`: {question, document} to prompts, "
            "or {question, response} to responses. `claims`: {reference, sentence, label} to annotations, with their "
            "prompts in NAME.prompts.jsonl beside them. Or a format of your own."
        ),
    ]
    out: Annotated[Path, Option("The records: JSONL or, if the name ends in .parquet, Parquet.")]
    limit: Annotated[int, Field(ge=0), Option("Rejected rows to print; all are counted.")] = 20


@dataclass
class ExportStats:
    """What was written."""

    records: int = 0
    plain: int = 0
    """Pairs of plain strings (``--raw``)."""
    not_judged: int = 0
    """Sentences without a verdict."""


@dataclass
class ImportStats:
    """What was read. All rejected rows are counted, the first ones are kept as errors."""

    kind: str = ""
    records: int = 0
    sentences: int = 0
    rejected: int = 0
    errors: list[InputError] = field(default_factory=list)


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
    _record(out, "export", to, {"prompts": prompts_file, "records": file}, vars(stats))
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


def prompts_file(out: Path) -> Path:
    """Where the prompts of rows go that bring their own."""
    return out.with_name(f"{out.stem}.prompts{out.suffix}")


def import_file(file: Path, out: Path, source: str, limit: int = 20) -> ImportStats:
    """Convert the rows of another format to records: JSONL or, by the suffix of ``out``, Parquet.

    Rows that are not valid are left out, counted and, up to ``limit``, kept as errors.

    Raises:
        UserError: no row could be read.
    """
    refuse_overwriting(out, file)
    refuse_replacing(out, "import")
    stats = ImportStats()
    prompts: list[Prompt] = []
    with record_writer(out) as write:
        for record, prompt in _imported(file, source, stats, limit):
            write(record)
            prompts += [prompt] if prompt is not None else []
        if not stats.records:
            first = f"; the first: {stats.errors[0]}" if stats.errors else ""
            raise InputError(f"no row is {source} data ({stats.rejected} rejected){first}", path=file)
        if prompts:
            refuse_overwriting(prompts_file(out), file)
            write_records(prompts_file(out), prompts)
    counts = {key: value for key, value in vars(stats).items() if key != "errors"}
    _record(out, "import", source, {"records": file}, counts)
    return stats


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


def _imported(file: Path, source: str, stats: ImportStats, limit: int) -> Iterator[tuple[FileRecord, Prompt | None]]:
    seen: dict[str, int] = {}
    reader: Reader | None = None
    for line, raw in _lines(file):
        error = partial(InputError, path=file, line=line)
        try:
            values = _object(raw)
            reader = reader or _reader(values, source)
            row = reader.row.model_validate(values)
            record, prompt = reader.convert(row, line), reader.prompt(row, line) if reader.prompt else None
            first = seen.setdefault(record.id, line)
            if first != line:
                raise ValueError(f"the same as line {first}: both would get the id {record.id}")
        except ValidationError as problem:  # pydantic's, a ValueError too
            name, message = first_problem(problem)
            reason = error(message, field=name)
        except ValueError as problem:
            reason = error(str(problem))
        else:
            stats.kind = type(record).__name__.lower()
            stats.records += 1
            if isinstance(record, Pair):
                stats.sentences += len(record.chosen_sentences) + len(record.rejected_sentences)
            yield record, prompt
            continue
        stats.rejected += 1
        if len(stats.errors) < limit:
            stats.errors.append(reason)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    with open_input(file, as_is=True) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, line.removeprefix(BOM) if number == 1 else line


def _object(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not a JSON object; is the line torn?") from None
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    return values


def _reader(values: dict[str, Any], source: str) -> Reader:
    """The reader for the rows of a file, by the fields of its first valid row."""
    for field_name, reader in IMPORTS[source].items():
        if field_name in values:
            return reader
    raise ValueError(f"no {source} data: it has none of the fields {', '.join(IMPORTS[source])}")


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


def _record(out: Path, command: str, name: str, inputs: dict[str, Path | None], counts: dict[str, Any]) -> None:
    """Write the run record for ``lineage``. It replaces an earlier one, because the output was replaced."""
    meta_file(out).unlink(missing_ok=True)
    given = {role: path for role, path in inputs.items() if path is not None}
    Run(meta_file(out), command, {"format": name}, given, restart="").finish(counts)
