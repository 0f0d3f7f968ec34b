"""Tables that other programs wrote: what JSONL leaves out is null there, and texts have many types."""

import json
from collections.abc import Callable
from datetime import date, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from maskdpo.errors import InputError
from maskdpo.io import read_records, record_type
from maskdpo.run_record import sha256_of
from maskdpo.schemas import Annotation, Pair, Prompt, Record
from maskdpo.schemas.records import FileRecord

RIGHT = {"start": 0, "end": 6, "label": "no_hallucination"}
FAILED = {"start": 7, "end": 12, "status": "api_error", "kind": "list_item"}
ANSWER = [{"role": "assistant", "content": "It is. Or not."}]
Rows = list[dict[str, Any]]
RECORDS: dict[type[FileRecord], Rows] = {
    Annotation: [
        {"id": "a", "prompt_id": "q", "response": "It is. Or not.", "sentences": [RIGHT, FAILED],
         "judge": {"name": "j"}},
        {"id": "b", "prompt_id": "q", "response": "It is.", "sentences": [RIGHT | {"confidence": 0.5}], "model": "m"},
        {"id": "c", "prompt_id": "q", "response": "", "sentences": [], "meta": {"seen": "2026-11-28", "by": "me"}},
        {"id": "d", "prompt_id": "q", "response": "", "sentences": [], "meta": {"seen": "2026-11-29"},
         "sampling": {"template_options": {"enable_thinking": False}, "prompt_date": "2026-11-28"}},
        {"id": "e", "prompt_id": "q", "response": "", "sentences": [],
         "sampling": {"template_options": {"effort": "low"}}},
    ],
    Pair: [
        {"id": "p", "prompt_id": "q", "topic": "t", "chosen": ANSWER, "rejected": ANSWER, "weight": 2.0,
         "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "?"}],
         "chosen_sentences": [RIGHT], "rejected_sentences": []},
        {"id": "r", "prompt_id": "q", "topic": "t", "chosen": ANSWER, "rejected": ANSWER, "prompt_date": "2026-11-28",
         "prompt": [{"role": "user", "content": "?"}],
         "chosen_sentences": [], "rejected_sentences": [RIGHT]},
    ],
    Prompt: [
        {"id": "q", "prompt": "?", "reference": ["One.", "Two."], "language": "en"},
        {"id": "r", "prompt": "!", "topic": "t", "meta": {"n": 1}},
    ],
}  # fmt: skip
"""Fields that some records have and others have not, at the top and inside."""


def table_of(rows: Rows) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])


def by_pyarrow(file: Path, rows: Rows) -> None:
    pq.write_table(table_of(rows), file)


def with_other_texts(file: Path, rows: Rows) -> None:
    table = table_of(rows)
    others = (pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.string_view())
    texts = [field.name for field in table.schema if field.type == pa.string()]
    for name, kind in zip(texts, cycle(others)):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    assert set(table.schema.types) & set(others)
    pq.write_table(table, file)


def by_pandas(file: Path, rows: Rows) -> None:
    """With the column that pandas makes of an index."""
    pd.DataFrame(rows, index=[f"row {i}" for i in range(len(rows))]).to_parquet(file)
    assert "__index_level_0__" in pq.read_schema(file).names


def as_feather(file: Path, rows: Rows) -> None:
    feather.write_feather(table_of(rows), file)


def as_stream(file: Path, rows: Rows) -> None:
    table = table_of(rows)
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def from_lines_by_datasets(file: Path, rows: Rows) -> None:
    """Reading JSON lines, ``datasets`` takes texts like 2026-11-28 for times, and keeps mixed objects as JSON."""
    lines = file.with_suffix(".jsonl")
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = datasets.load_dataset("json", data_files=str(lines), split="train", cache_dir=str(file.parent / "cache"))
    loaded.to_parquet(file)


def saved_by_datasets(file: Path, rows: Rows) -> None:
    datasets.Dataset(table_of(rows)).save_to_disk(file, num_shards=2)


WRITERS = [
    by_pyarrow, with_other_texts, by_pandas, as_feather, as_stream, from_lines_by_datasets, saved_by_datasets
]  # fmt: skip


@pytest.mark.parametrize("model", RECORDS)
@pytest.mark.parametrize("write", WRITERS)
def test_records_that_another_program_wrote_are_the_same(
    write: Callable[[Path, Rows], None], model: type[FileRecord], tmp_path: Path
) -> None:
    file = tmp_path / "by another.table"
    write(file, RECORDS[model])
    assert record_type(file) is model
    assert list(read_records(file, model)) == [model.model_validate(row) for row in RECORDS[model]]
    assert len(sha256_of(file)) == 64


@pytest.mark.parametrize("model", [Prompt, Annotation, Pair])
def test_null_is_as_if_the_field_were_left_out(model: type[FileRecord], jsonl: Any) -> None:
    """In every field that may be left out, also inside of sentences and judges."""
    span = {"start": 0, "end": 2, "label": "no_fact"}
    whole: dict[type[FileRecord], dict[str, Any]] = {
        Prompt: {"id": "a", "prompt": "?"},
        Annotation: {"id": "a", "prompt_id": "q", "response": "So.", "sentences": [span], "judge": {"name": "j"}},
        Pair: {"id": "a", "prompt_id": "q", "topic": "t", "prompt": "?", "chosen": "So.", "rejected": "No.",
               "chosen_sentences": [span], "rejected_sentences": []},
    }  # fmt: skip
    row = whole[model]
    nulls = row | _nulls(model, row)
    if model is Annotation:
        sentence, judge = model.model_validate(row).sentences[0], model.model_validate(row).judge
        nulls |= {"sentences": [span | _nulls(type(sentence), span)], "judge": {"name": "j"} | _nulls(type(judge), row)}
    (read,) = read_records(jsonl("x.jsonl", [nulls]), model)
    assert read == model.model_validate(row)


def _nulls(model: type[Record], row: dict[str, Any]) -> dict[str, None]:
    found = {name: None for name, field in model.model_fields.items() if not field.is_required() and name not in row}
    assert found
    return found


def test_maps_and_times_become_what_json_has(tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    kinds = {
        "by": pa.map_(pa.string(), pa.string()),
        "at": pa.timestamp("s"),
        "day": pa.date32(),
        "n": pa.decimal128(3),
    }
    meta = {"by": [("a", "x"), ("b", None)], "at": datetime(2026, 11, 28, 9, 30), "day": date(2026, 11, 28), "n": None}
    schema = pa.schema([("id", pa.string()), ("prompt", pa.string()), ("meta", pa.struct(list(kinds.items())))])
    pq.write_table(pa.Table.from_pylist([{"id": "q", "prompt": "?", "meta": meta}], schema=schema), file)
    (read,) = read_records(file, Prompt)
    assert read.meta == {"by": {"a": "x"}, "at": "2026-11-28T09:30:00", "day": "2026-11-28"}


def test_a_folder_of_splits_asks_for_one_of_them(tmp_path: Path) -> None:
    saved = datasets.Dataset.from_list([{"id": "q", "prompt": "?"}])
    datasets.DatasetDict({"train": saved, "new": saved}).save_to_disk(tmp_path / "all")
    with pytest.raises(
        InputError, match=r"all: holds the splits of a dataset; name one of them: .*all/train, .*all/new"
    ):
        list(read_records(tmp_path / "all", Prompt))
    assert [prompt.id for prompt in read_records(tmp_path / "all" / "new", Prompt)] == ["q"]


def test_the_hash_of_a_saved_folder_is_that_of_its_data(tmp_path: Path) -> None:
    saved_by_datasets(tmp_path / "a", RECORDS[Annotation])
    before = sha256_of(tmp_path / "a")
    (tmp_path / "a" / "dataset_info.json").write_text("{}")
    assert sha256_of(tmp_path / "a") == before
    saved_by_datasets(tmp_path / "b", RECORDS[Annotation][:-1])
    assert sha256_of(tmp_path / "b") != before


@pytest.mark.parametrize("begin", [b"ARROW1\0\0", b"\xff\xff\xff\xff\x10\0\0\0", b"PAR1"])
def test_a_table_that_is_cut_off_says_so(begin: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.arrow"
    file.write_bytes(begin + b"\0\0\0")
    with pytest.raises(InputError, match=r"x\.arrow: cannot be read as Parquet or Arrow \("):
        list(read_records(file, Prompt))
    saved_by_datasets(tmp_path / "saved", RECORDS[Annotation])
    next((tmp_path / "saved").glob("*.arrow")).unlink()
    with pytest.raises(InputError, match="cannot be read as Parquet or Arrow"):
        list(read_records(tmp_path / "saved", Annotation))
    (tmp_path / "saved" / "state.json").write_text("[]")
    with pytest.raises(InputError, match=r"state\.json: cannot be read; save the dataset again"):
        list(read_records(tmp_path / "saved", Annotation))
