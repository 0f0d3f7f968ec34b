"""Records survive Parquet exactly, and what is wrong in a table is said as for lines."""

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskdpo.errors import InputError, UserError
from maskdpo.io import open_input, parquet, read_records, record_type, record_writer, scan, sources, write_records
from maskdpo.run_record import sha256_of
from maskdpo.schemas import Annotation, Label, Pair, Prompt, Record, Response, Status

WHOLE = st.characters(exclude_categories=["Cs"])
TEXT = st.text(WHOLE, max_size=20)
NAME = st.text(WHOLE, min_size=1, max_size=8)
OPTIONAL = st.none() | TEXT
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
META = st.dictionaries(TEXT, JSON, max_size=3)
FINISH = st.sampled_from([None, "stop", "length"])
SCORE = st.none() | st.floats(allow_nan=False, allow_infinity=False)
FRACTION = st.none() | st.floats(0, 1)
SCORES = st.dictionaries(st.sampled_from([label.value for label in Label]), st.floats(0, 1 / len(Label)), min_size=1)


def messages(role: str) -> st.SearchStrategy[list[dict[str, str]]]:
    return st.lists(st.fixed_dictionaries({"role": st.just(role), "content": TEXT}), min_size=1, max_size=1)


@st.composite
def prompts(draw: Any, chat: bool) -> Prompt:
    asked = st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT}), min_size=1
    )
    values = {
        "id": NAME,
        "prompt": asked if chat else TEXT,
        "reference": OPTIONAL | st.lists(TEXT, max_size=3),
        "topic": st.none() | NAME,
        "language": st.sampled_from([None, "en", "zh"]),
        "meta": META,
    }
    prompt = draw(st.fixed_dictionaries(values))
    passages = 1 if isinstance(prompt["reference"], str) else len(prompt["reference"] or [])
    place = {"document": NAME, "title": OPTIONAL, "start": st.integers(0, 9), "end": st.integers(0, 9), "score": SCORE}
    found = st.lists(st.none() | st.fixed_dictionaries(place), min_size=passages, max_size=passages)
    return Prompt.model_validate(prompt | {"sources": draw(st.none() | found)})


@st.composite
def spans(draw: Any, text: str, judged: bool) -> list[dict[str, Any]]:
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    found = []
    for start, end in itertools.pairwise(cuts):
        label = draw(st.none() | st.sampled_from(list(Label)))
        span = {"start": start, "end": end, "label": label, "confidence": draw(FRACTION)}
        if judged:
            bad = st.sampled_from([status for status in Status if status is not Status.OK])
            span |= {"status": Status.OK if label else draw(bad), "evidence": draw(OPTIONAL), "reason": draw(OPTIONAL)}
            span |= {"scores": draw(st.none() | SCORES), "inclusion": draw(st.none() | st.floats(1e-6, 1))}
            span["kind"] = draw(st.sampled_from(["prose", "heading", "list_item", "code", "table"]))
        found.append(span)
    return found


def response_values() -> dict[str, st.SearchStrategy[Any]]:
    return {
        "id": NAME, "prompt_id": NAME, "response": TEXT, "model": OPTIONAL, "sampling": st.none() | META,
        "finish_reason": FINISH, "meta": META, "reasoning": OPTIONAL,
    }  # fmt: skip


def responses(chat: bool) -> st.SearchStrategy[Response]:
    return st.fixed_dictionaries(response_values()).map(Response.model_validate)


@st.composite
def annotations(draw: Any, chat: bool) -> Annotation:
    values = draw(st.fixed_dictionaries(response_values()))
    judge = {
        "name": TEXT, "model": OPTIONAL, "revision": OPTIONAL, "protocol": OPTIONAL, "protocol_hash": OPTIONAL,
        "votes": st.integers(-(2**63), 2**63 - 1), "splitter": OPTIONAL, "version": TEXT,
        "template_options": OPTIONAL, "calibration": OPTIONAL, "min_confidence": FRACTION,
    }  # fmt: skip
    values["judge"] = draw(st.none() | st.fixed_dictionaries(judge))
    values["sentences"] = draw(spans(values["response"], True))
    return Annotation.model_validate(values)


@st.composite
def pairs(draw: Any, chat: bool) -> Pair:
    values = {
        "id": NAME, "prompt_id": NAME, "topic": NAME, "prompt": messages("user") if chat else TEXT,
        "chosen_score": SCORE, "rejected_score": SCORE, "chosen_finish_reason": FINISH,
        "rejected_finish_reason": FINISH, "weight": st.floats(1e-6, 1e6),
        "chosen_reasoning": OPTIONAL, "rejected_reasoning": OPTIONAL, "template_options": st.none() | META,
        "prompt_date": st.none() | st.dates(),
    }  # fmt: skip
    found = draw(st.fixed_dictionaries(values))
    for side in ("chosen", "rejected"):
        text = draw(TEXT)
        found[side] = [{"role": "assistant", "content": text}] if chat else text
        found[f"{side}_sentences"] = draw(spans(text, False))
    return Pair.model_validate(found)


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("kind", [prompts, responses, annotations, pairs])
def test_every_record_is_the_same_after_jsonl_and_parquet(
    kind: Callable[[bool], st.SearchStrategy[Record]], chat: bool, tmp_path: Path
) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.lists(kind(chat), min_size=1, max_size=4, unique_by=lambda record: record.id))  # type: ignore[attr-defined]
    def check(records: list[Record]) -> None:
        lines, table = tmp_path / "r.jsonl", tmp_path / "r.parquet"
        write_records(lines, records)
        read = list(read_records(lines, type(records[0])))
        assert write_records(table, read) == len(records)
        assert table.read_bytes()[:4] == b"PAR1"
        assert list(read_records(table, type(records[0]))) == read == records
        with open_input(table) as again:
            assert again.read() == lines.read_bytes()

    check()


@pytest.mark.parametrize(
    "reference",
    [None, "", "one", [], [""], ["one"], ["one", "two"]],
    ids=["none", "", "s", "[]", "['']", "[s]", "[st]"],
)
def test_one_text_and_a_list_of_one_stay_apart(reference: Any, tmp_path: Path) -> None:
    prompt = Prompt(id="q", prompt="?", reference=reference)
    write_records(tmp_path / "p.parquet", [prompt])
    assert list(read_records(tmp_path / "p.parquet", Prompt)) == [prompt]
    column = pq.read_table(tmp_path / "p.parquet")["reference"]
    assert column.type == pa.list_(pa.string())
    assert column.to_pylist() == [[reference] if isinstance(reference, str) else reference]


def test_columns_are_those_that_docs_and_trl_name() -> None:
    text = [pa.field("role", pa.string()), pa.field("content", pa.string())]
    span = [("start", pa.int64()), ("end", pa.int64()), ("label", pa.string()), ("confidence", pa.float64())]
    for chat, kind in ((False, pa.string()), (True, pa.list_(pa.struct(text)))):
        schema = parquet.schema_of(Pair, chat=chat)
        assert {schema.field(name).type for name in ("prompt", "chosen", "rejected")} == {kind}
        assert schema.field("chosen_sentences").type == pa.list_(pa.struct(span))
        assert schema.field("weight").type == pa.float64()
        assert schema.field("prompt_date").type == schema.field("template_options").type == pa.string()
    prompt = parquet.schema_of(Prompt, chat=False)
    assert [(f.name, str(f.type)) for f in prompt] == [
        ("id", "string"), ("prompt", "string"), ("reference", "list<item: string>"), ("reference_is_string", "bool"),
        ("sources", "list<item: struct<document: string, title: string, start: int64, end: int64, score: double>>"),
        ("topic", "string"), ("language", "string"), ("meta", "string"),
    ]  # fmt: skip
    annotation = parquet.schema_of(Annotation, chat=False)
    assert annotation.field("judge").type.field("votes").type == pa.int64()
    assert annotation.field("sampling").type == pa.string()
    sentence = annotation.field("sentences").type.value_type
    assert sentence.field("scores").type == pa.struct([(label.value, pa.float64()) for label in Label])
    assert sentence.field("inclusion").type == pa.float64()


def test_scores_are_a_column_per_label_and_come_back_as_they_were(tmp_path: Path) -> None:
    sentences = [
        {"start": 0, "end": 1, "label": "no_hallucination", "scores": {"no_hallucination": 0.7, "no_fact": 0.0}},
        {"start": 1, "end": 2, "status": "unsure", "scores": {"contradictory": 0.4}},
        {"start": 2, "end": 3, "status": "refused"},
    ]
    record = Annotation.model_validate({"id": "a", "prompt_id": "q", "response": "So.", "sentences": sentences})
    write_records(tmp_path / "a.parquet", [record])
    assert list(read_records(tmp_path / "a.parquet", Annotation)) == [record]
    (rows,) = pq.read_table(tmp_path / "a.parquet")["sentences"].to_pylist()
    none = dict.fromkeys(label.value for label in Label)
    assert [row["scores"] for row in rows] == [
        none | {"no_hallucination": 0.7, "no_fact": 0.0},
        none | {"contradictory": 0.4},
        None,
    ]


def test_half_a_character_becomes_a_question_mark_as_in_a_line(tmp_path: Path) -> None:
    broken = Prompt(id="q", prompt="a\ud800b", meta={"k": ["\ud800"]})
    for name in ("p.jsonl", "p.parquet"):
        write_records(tmp_path / name, [broken])
        (read,) = read_records(tmp_path / name, Prompt)
        assert (read.prompt, read.meta) == ("a?b", {"k": ["?"]})


def test_many_rows_go_through_in_groups_and_numbers_count_on(tmp_path: Path) -> None:
    file = tmp_path / "many.parquet"
    count = 2 * parquet.ROWS_PER_GROUP + 1
    assert write_records(file, (Prompt(id=str(i), prompt="?") for i in range(count))) == count
    assert pq.ParquetFile(file).num_row_groups == 3
    assert [item.line for item in scan(file, Prompt) if not isinstance(item, InputError)] == list(range(1, count + 1))


def test_a_file_that_fails_is_not_there_and_the_old_one_stays(tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    write_records(file, [Prompt(id="old", prompt="?")])
    before = file.read_bytes()
    with pytest.raises(UserError, match="prompt 'b' is of chat messages, those before it of strings"):
        write_records(
            file,
            [
                Prompt(id="a", prompt="?"),
                Prompt.model_validate({"id": "b", "prompt": [{"role": "user", "content": "?"}]}),
            ],
        )
    with pytest.raises(UserError, match="no records to write"):
        write_records(file, [])
    with pytest.raises(ZeroDivisionError), record_writer(file) as write:
        write(Prompt(id="a", prompt="?"))
        print(1 // 0)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


GOOD = {"id": "q", "prompt": "?", "meta": "{}"}


def rows_of(folder: Path, rows: Iterable[dict[str, Any]]) -> Path:
    file = folder / "x.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return file


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, {**GOOD, "id": "r", "prompt": None}], "x.parquet:2: prompt: must be a string or a list"),
        ([GOOD, {**GOOD, "id": ""}], "x.parquet:2: id: String should have at least 1 character"),
        ([GOOD, GOOD], "x.parquet:2: id: duplicate id 'q', first on line 1"),
        ([{**GOOD, "meta": "{"}], "x.parquet:1: meta: is not JSON ("),
        ([{**GOOD, "meta": "[1]"}], "x.parquet:1: meta: Input should be a valid dictionary"),
        ([{**GOOD, "extra": 1}], "x.parquet:1: extra: unknown field; put what is your own under 'meta'"),
        ([{"id": "q"}], "x.parquet:1: prompt: is missing"),
        ([{**GOOD, "language": "a b"}], "x.parquet:1: language: 'a b' is no language tag"),
        ([{**GOOD, "reference": 3, "reference_is_string": True}], "x.parquet:1: reference: must be a string or a list"),
        (
            [{**GOOD, "reference": {"a": "b"}, "reference_is_string": True}],
            "x.parquet:1: reference: must be a string or a list",
        ),
    ],
)
def test_a_bad_row_is_named_with_file_row_and_field(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    file = rows_of(tmp_path, rows)
    with pytest.raises(InputError) as caught:
        list(read_records(file, Prompt))
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(message)


def test_a_file_that_is_cut_off_is_no_parquet_file(tmp_path: Path) -> None:
    file = rows_of(tmp_path, [GOOD])
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"x\.parquet: cannot be read as Parquet or Arrow"):
        list(read_records(file, Prompt))


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_damaged_pages_are_named_with_file_and_row(compression: str, tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    rows = [{**GOOD, "id": f"q{i}", "prompt": f"{i} {i * i}?"} for i in range(600)]
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=400, compression=compression)
    column = pq.ParquetFile(file).metadata.row_group(1).column(1)
    content = bytearray(file.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.parquet:401: cannot be read from this row on \("):
        list(read_records(file, Prompt))


def test_a_text_that_is_marked_as_one_stays_whole(tmp_path: Path) -> None:
    (read,) = read_records(rows_of(tmp_path, [{**GOOD, "reference": "one", "reference_is_string": True}]), Prompt)
    assert read.reference == "one"


def test_what_is_json_lines_is_read_as_such_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    file.write_text(json.dumps({"id": "q", "prompt": "?"}))
    assert [p.id for p in read_records(file, Prompt)] == ["q"]


def annotation(number: int) -> Annotation:
    sentence = {"start": 0, "end": 2, "label": "no_fact"}
    return Annotation.model_validate(
        {"id": f"r{number}", "prompt_id": "q", "response": "So.", "sentences": [sentence], "model": "m"}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = tmp_path / "data"
    for name, numbers in (("train-00000", (0, 1)), ("train-00001", (2,)), ("test-00000", (3,))):
        write_records(base / "annotations" / f"{name}.parquet", map(annotation, numbers))
    write_records(base / "prompts" / "train-00000.parquet", [Prompt(id="q", prompt="?")])
    return base


def test_a_folder_is_read_by_what_is_asked_for(folder: Path) -> None:
    def ids(name: str, model: type[Record]) -> list[str]:
        return [record.id for record in read_records(Path(f"{folder}{name}"), model)]  # type: ignore[attr-defined]

    assert (
        ids("", Annotation) == ids(":train", Annotation) == ids(":annotations:train", Annotation) == ["r0", "r1", "r2"]
    )
    assert ids(":test", Annotation) == ids(":annotations:test", Annotation) == ["r3"]
    assert ids("", Prompt) == ids(":prompts", Prompt) == ["q"]
    (first, *_) = read_records(folder, Response)
    assert first == Response(id="r0", prompt_id="q", response="So.", model="m")
    assert record_type(folder) is Annotation
    assert record_type(Path(f"{folder}:prompts")) is Prompt
    with open_input(Path(f"{folder}:annotations")) as lines:
        assert [json.loads(line)["id"] for line in lines] == ["r0", "r1", "r2"]


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("", Pair, "data: holds no pairs/train-*.parquet"),
        (":test", Prompt, "data:test: holds no prompts/test-*.parquet"),
        (":annotations", Prompt, "data:annotations: holds annotations, prompts are needed"),
        (":prompts", Response, "data:prompts: holds prompts, responses are needed"),
        (
            ":valid",
            Prompt,
            "data:valid: 'valid' is none of the splits train, test, validation and of",
        ),
        (":prompts:valid", Prompt, "data:prompts:valid: 'valid' is none of the splits"),
    ],
)
def test_what_a_folder_does_not_hold_is_said(name: str, model: type[Record], message: str, folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        list(read_records(Path(f"{folder}{name}"), model))
    assert str(caught.value).removeprefix(f"{folder.parent}/").startswith(message)


def test_ids_are_unique_over_all_shards_and_rows_count_through(folder: Path) -> None:
    write_records(folder / "annotations" / "train-00002.parquet", [annotation(4), annotation(1)])
    with pytest.raises(InputError) as caught:
        list(read_records(folder, Annotation))
    assert str(caught.value) == f"{folder}/annotations/train-*.parquet:5: id: duplicate id 'r1', first on line 2"


def test_a_folder_has_a_hash_of_its_own_files_whatever_they_were_made_in(folder: Path) -> None:
    whole, part = sha256_of(folder), sha256_of(Path(f"{folder}:annotations"))
    assert len(whole) == len(part) == 64
    write_records(folder / "prompts" / "train-00000.parquet", [Prompt(id="q2", prompt="?")])
    assert sha256_of(folder) != whole
    assert sha256_of(Path(f"{folder}:annotations")) == part
    (folder / "annotations" / "train-00001.parquet").rename(folder / "annotations" / "train-00009.parquet")
    assert sha256_of(Path(f"{folder}:annotations")) != part


def test_the_config_is_added_only_where_a_name_leaves_it_open(folder: Path) -> None:
    named = {name: str(sources.with_config(Path(name), "pairs")) for name in ("a.jsonl", "hub:u/n", "hub:u/n@v1:test")}
    assert named == {"a.jsonl": "a.jsonl", "hub:u/n": "hub:u/n:pairs", "hub:u/n@v1:test": "hub:u/n@v1:pairs:test"}
    assert str(sources.with_config(folder, "pairs")) == f"{folder}:pairs"
    assert str(sources.with_config(Path("hub:u/n:prompts"), "pairs")) == "hub:u/n:prompts"


@pytest.mark.parametrize("name", ["hub:", "hub:u/n@", "hub:u/n:", "hub:u/n::test", "hub:@v1"])
def test_a_hub_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="must read hub:user/name"):
        sources.dataset_of(Path(name))
