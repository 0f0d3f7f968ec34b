"""``maskdpo import``: rows of other tools to records, written atomically."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, AliasChoices, BaseModel, Field, ValidationError

from maskdpo.errors import InputError, UserError, first_problem
from maskdpo.formats.anah import AnswerRow, DocumentRow, to_prompt, to_response
from maskdpo.formats.argilla import ArgillaRecord, from_argilla
from maskdpo.formats.claims import ClaimRow, claim_annotation, claim_prompt
from maskdpo.formats.exporting import record_run
from maskdpo.formats.label_studio import Task, from_label_studio
from maskdpo.formats.paper import PaperRow, from_paper
from maskdpo.formats.prompts import PromptRow, plain_prompt
from maskdpo.io import record_writer, refuse_overwriting, write_records
from maskdpo.io.rows import rows_of
from maskdpo.registry import Registry, named_in
from maskdpo.run_record import refuse_replacing
from maskdpo.schemas import FileRecord, Pair, Prompt
from maskdpo.settings import Limit, Option, Settings


class Reader(NamedTuple):
    """How a row of another format is validated, and converted to a record or to several."""

    row: type[BaseModel]
    convert: Callable[[Any, int], FileRecord | Sequence[FileRecord]]
    prompt: Callable[[Any, int], Prompt] | None = None
    """The prompt of a row that brings its own; these go to ``prompts_file(out)``."""


IMPORTS: Registry[Mapping[str, Reader]] = Registry(
    "format",
    {
        "prompts": {"prompt": Reader(PromptRow, plain_prompt)},
        "mask-dpo-paper": {"chosen": Reader(PaperRow, from_paper)},
        "claims": {"sentence": Reader(ClaimRow, claim_annotation, claim_prompt)},
        "label-studio": {"annotations": Reader(Task, from_label_studio)},
        "argilla": {"responses": Reader(ArgillaRecord, from_argilla)},
        "anah": {"document": Reader(DocumentRow, to_prompt), "response": Reader(AnswerRow, to_response)},
    },
    check=lambda found: None if isinstance(found, Mapping) else "is no format to import from",
)
"""By format, readers by the field that tells its kinds of rows apart."""


def parse_columns(text: str | None) -> dict[str, str]:
    """Columns by field, out of FIELD=COLUMN,FIELD=COLUMN.

    Raises:
        ValueError: the text is not of this form.
    """
    found: dict[str, str] = {}
    for one in text.split(",") if text else ():
        name, equals, column = (part.strip() for part in one.partition("="))
        if not (name and equals and column):
            raise ValueError(f"{one!r} is not of the form FIELD=COLUMN")
        if name in found:
            raise ValueError(f"{name} is given twice")
        found[name] = column
    return found


def _checked_columns(text: str | None) -> str | None:
    parse_columns(text)
    return text


class ImportSettings(Settings):
    """What ``maskdpo import`` can be told."""

    file: Annotated[
        Path,
        Option(
            "The file in the other format: JSON lines or one JSON list, CSV or TSV with a header, Parquet, Arrow, or "
            "`hub:user/name`.",
            argument=True,
        ),
    ]
    format: Annotated[
        str,
        named_in("maskdpo.formats.importing:IMPORTS"),
        Option(
            "`prompts`: {prompt, reference, topic, id, language}, of which only the first is needed, to prompts. "
            "`mask-dpo-paper`: training data of the paper's code, to pairs. `anah`: {question, document} to prompts, "
            "or {question, response} to responses. `claims`: {reference, sentence, label} to annotations, with their "
            "prompts in NAME.prompts.jsonl beside them. `label-studio`, `argilla`: what people made of an export to "
            "these tools, to decisions. Or a format of your own."
        ),
    ]
    out: Annotated[Path, Option("The records: JSONL or, if the name ends in .parquet, Parquet.")]
    columns: Annotated[
        str | None,
        AfterValidator(_checked_columns),
        Option(
            "Which column holds which field of the format, where the names differ; parts of an object: `a.b`.",
            metavar="FIELD=COLUMN,...",
        ),
    ] = None
    limit: Limit = None
    max_errors: Annotated[int, Field(ge=0), Option("Rejected rows to print; all are counted.")] = 20


@dataclass
class ImportStats:
    """What was read. All rejected rows are counted, the first ones are kept as errors."""

    kind: str = ""
    rows: int = 0
    records: int = 0
    sentences: int = 0
    rejected: int = 0
    errors: list[InputError] = field(default_factory=list)


def prompts_file(out: Path) -> Path:
    """Where the prompts of rows go that bring their own."""
    return out.with_name(f"{out.stem}.prompts{out.suffix}")


def import_file(
    file: Path,
    out: Path,
    source: str,
    max_errors: int = 20,
    *,
    columns: Mapping[str, str] = MappingProxyType({}),
    limit: int | None = None,
) -> ImportStats:
    """Convert the rows of another format to records: JSONL or, by the suffix of ``out``, Parquet.

    Rows that are not valid are left out, counted and, up to ``max_errors``, kept as errors.

    Args:
        columns: which column holds which field of the format, where the names differ.
        limit: read only so many rows, the first ones.

    Raises:
        UserError: no row could be read.
    """
    refuse_overwriting(out, file)
    refuse_replacing(out, "import")
    _refuse_unknown_fields(columns, source)
    stats = ImportStats()
    prompts: list[Prompt] = []
    with record_writer(out) as write:
        for record, prompt in _imported(_renamed(file, columns, limit), file, source, stats, max_errors):
            write(record)
            prompts += [prompt] if prompt is not None else []
        if not stats.records:
            first = f"; the first: {stats.errors[0]}" if stats.errors else ""
            if stats.rows and not stats.rejected:
                raise InputError("nobody has labelled anything in it", path=file)
            empty = "" if stats.rows else ": the file is empty, or has a header only"
            raise InputError(f"no row is {source} data ({stats.rejected} rejected){first}{empty}", path=file)
        if prompts:
            refuse_overwriting(prompts_file(out), file)
            write_records(prompts_file(out), prompts)
    options = {"columns": dict(columns)} if columns else {}
    counts = {key: value for key, value in vars(stats).items() if key != "errors"}
    record_run(out, "import", source, {"records": file}, counts, **options)
    return stats


def _refuse_unknown_fields(columns: Mapping[str, str], source: str) -> None:
    known = {
        alias
        for reader in IMPORTS[source].values()
        for name, info in reader.row.model_fields.items()
        for alias in (name, info.alias, *_choices(info.validation_alias))
        if isinstance(alias, str)
    }
    for name in columns:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(sorted(known))}"
            raise UserError(f"`columns`: {source} has no field {name!r}{hint}")


def _choices(alias: Any) -> Sequence[Any]:
    return alias.choices if isinstance(alias, AliasChoices) else (alias,)


def _renamed(file: Path, columns: Mapping[str, str], limit: int | None) -> Iterator[tuple[int, Any]]:
    """The rows of a file, with fields by the names that the format has; fields without a value are left out.

    Raises:
        InputError: no row has one of the columns.
    """
    there: dict[str, None] = {}
    unseen = dict(columns)
    for line, values in islice(rows_of(file), limit):
        if not isinstance(values, dict):
            yield line, values
            continue
        parts = {name: _part(values, column) for name, column in columns.items()}
        unseen = {name: column for name, column in unseen.items() if parts[name] is MISSING}
        there |= dict.fromkeys(map(str, values)) if unseen else {}
        own = {name: value for name, value in values.items() if name not in parts}
        yield line, {name: value for name, value in (own | parts).items() if value not in (None, MISSING)}
    if unseen and there:
        raise InputError(f"has no column {next(iter(unseen.values()))!r}; it has: {', '.join(there)}", path=file)


MISSING = object()


def _part(values: dict[str, Any], column: str) -> Any:
    """The value of a column, or of a part of an object in it: ``answers.text``."""
    if column in values:
        return values[column]
    first, dot, rest = column.partition(".")
    inner = values.get(first)
    return _part(inner, rest) if dot and isinstance(inner, dict) else MISSING


def _imported(
    rows: Iterable[tuple[int, Any]], file: Path, source: str, stats: ImportStats, limit: int
) -> Iterator[tuple[FileRecord, Prompt | None]]:
    seen: dict[str, int] = {}
    reader: Reader | None = None
    for line, values in rows:
        stats.rows += 1
        error = partial(InputError, path=file, line=line)
        try:
            if isinstance(values, ValueError):
                raise values
            if not isinstance(values, dict):
                raise ValueError("not a JSON object")
            reader = reader or _reader(values, source)
            row = reader.row.model_validate(values)
            made, prompt = reader.convert(row, line), reader.prompt(row, line) if reader.prompt else None
            records = [made] if isinstance(made, FileRecord) else made
            for record in records:
                first = seen.setdefault(record.id, line)
                if first != line:
                    raise ValueError(f"the same as line {first}: both would get the id {record.id}")
        except ValidationError as problem:  # pydantic's, a ValueError too
            name, message = first_problem(problem)
            reason = error(message, field=name)
        except ValueError as problem:
            reason = error(str(problem))
        else:
            for record in records:
                stats.kind = type(record).__name__.lower()
                stats.records += 1
                if isinstance(record, Pair):
                    stats.sentences += len(record.chosen_sentences) + len(record.rejected_sentences)
                yield record, prompt
            continue
        stats.rejected += 1
        if len(stats.errors) < limit:
            stats.errors.append(reason)


def _reader(values: dict[str, Any], source: str) -> Reader:
    """The reader for the rows of a file, by the fields of its first valid row."""
    for field_name, reader in IMPORTS[source].items():
        if field_name in values:
            return reader
    wanted = " or ".join(IMPORTS[source])
    raise ValueError(
        f"the format {source} needs a field {wanted}, and the row has {', '.join(map(str, values)) or 'none'}. If "
        f"another column holds it: --columns {next(iter(IMPORTS[source]))}=COLUMN"
    )
