"""What is written for the Hub: every record, each topic in one split, columns that datasets and TRL know."""

import json
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from hub_files import RecordFiles, answer, make_files, prompt, write

from maskdpo.dataset.hub import data, features
from maskdpo.dataset.hub.data import Files, write_data
from maskdpo.errors import UserError
from maskdpo.io import read_records, write_records
from maskdpo.run_record import meta_file
from maskdpo.schemas import Annotation, Pair, Prompt, Record


def split(folder: Path, part: str, model: type[Record]) -> list[Record]:
    return list(read_records(Path(f"{folder}:{part}"), model))


def topics(folder: Path, which: str) -> dict[str, set[str]]:
    """Topics by config of one split."""
    topic_of = {f"q{i}": f"t{i // 2}" for i in range(100)}
    prompts = {topic_of[record.id] for record in split(folder, f"prompts:{which}", Prompt)}  # type: ignore[attr-defined]
    answers = split(folder, f"annotations:{which}", Annotation)
    pairs = split(folder, f"pairs:{which}", Pair)
    return {
        "prompts": prompts,
        "annotations": {topic_of[record.prompt_id] for record in answers},  # type: ignore[attr-defined]
        "pairs": {topic_of[record.prompt_id] for record in pairs},  # type: ignore[attr-defined]
    }


@pytest.mark.parametrize("raw", [False, True])
def test_every_record_is_there_as_it_was_and_no_topic_in_two_splits(raw: bool, tmp_path: Path) -> None:
    files, folder = make_files(tmp_path / "in", raw=raw), tmp_path / "out"
    contents = write_data(folder, Files(*files))
    kinds: list[tuple[str, type[Record], list[Path]]] = [
        ("prompts", Prompt, [files.prompts]),
        ("annotations", Annotation, [files.annotations]),
        ("pairs", Pair, [files.pairs, files.pairs.with_name("pairs.test.jsonl")]),
    ]
    for config, model, sources in kinds:
        written = [record for which in ("train", "test") for record in split(folder, f"{config}:{which}", model)]
        read = [record for source in sources for record in read_records(source, model)]
        assert sorted(written, key=str) == sorted(read, key=str)
        assert sum(contents.parts[config].rows.values()) == len(read)
        assert contents.parts[config].chat is (config == "pairs" and not raw)
    train, test = topics(folder, "train"), topics(folder, "test")
    assert train["pairs"] == train["prompts"] == train["annotations"]
    assert test["pairs"] == test["prompts"] == test["annotations"]
    assert test["pairs"]
    assert not train["pairs"] & test["pairs"]


def test_topics_without_pairs_go_where_build_pairs_has_drawn_them(tmp_path: Path) -> None:
    whole, some = make_files(tmp_path / "whole", prompts=60), make_files(tmp_path / "some", prompts=60)
    write_data(tmp_path / "a", Files(*whole))
    test = some.pairs.with_name("pairs.test.jsonl")
    for file in (some.pairs, test):
        write_records(file, list(read_records(file, Pair))[:3])
    write_data(tmp_path / "b", Files(*some))
    assert topics(tmp_path / "b", "test")["prompts"] == topics(tmp_path / "a", "test")["prompts"]
    meta = json.loads(meta_file(some.pairs).read_text())
    meta_file(some.pairs).write_text(json.dumps(meta | {"options": {}}))
    write_data(tmp_path / "c", Files(*some))
    found = topics(tmp_path / "c", "test")["prompts"]
    assert found == {pair.topic for pair in read_records(test, Pair)}
    assert found < topics(tmp_path / "b", "test")["prompts"]


@pytest.mark.parametrize("record", [None, "import"])
def test_a_test_file_of_other_pairs_is_left_out(
    record: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = make_files(tmp_path / "in")
    meta = json.loads(meta_file(files.pairs).read_text())
    meta_file(files.pairs).unlink()
    if record:
        meta_file(files.pairs).write_text(json.dumps(meta | {"command": record}))
    contents = write_data(tmp_path / "out", Files(*files))
    assert all(list(part.rows) == ["train"] for part in contents.parts.values())
    assert contents.parts["pairs"].rows["train"] == len(list(read_records(files.pairs, Pair)))
    assert "warning: pairs.test.jsonl is left out: no record beside pairs.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("test_size", "x"), ("seed", None)])
def test_a_record_that_was_tampered_with_is_named(name: str, value: object, tmp_path: Path) -> None:
    files = make_files(tmp_path / "in")
    meta = json.loads(meta_file(files.pairs).read_text())
    meta["options"][name] = value
    meta_file(files.pairs).write_text(json.dumps(meta))
    assert fails(files, tmp_path) == f"in/pairs.jsonl.meta.json: options.{name}: {value!r} is no number"


def test_prompts_of_two_forms_are_no_one_column(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in")
    rows = [prompt(i) for i in range(20)]
    rows[1]["prompt"] = [{"role": "user", "content": "Where?"}]
    write(files.prompts, rows)
    said = fails(files, tmp_path)
    assert said == (
        "in/prompts.jsonl:2: prompt: this one is chat messages, those before it are texts; a column of prompts has one "
        "type: write all as chat messages (a text is one message of the user)"
    )


def test_without_test_pairs_all_is_train(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", test_size=0)
    contents = write_data(tmp_path / "out", Files(*files))
    assert {config: list(part.rows) for config, part in contents.parts.items()} == {
        "pairs": ["train"], "annotations": ["train"], "prompts": ["train"],
    }  # fmt: skip


def test_columns_are_what_is_declared_and_what_datasets_infers(tmp_path: Path) -> None:
    for raw in (False, True):
        folder = tmp_path / str(raw)
        contents = write_data(folder, Files(*make_files(tmp_path / f"in{raw}", raw=raw)))
        for config, part in contents.parts.items():
            loaded = datasets.Dataset.from_parquet(
                str(folder / config / "train-00000.parquet"), cache_dir=str(tmp_path / "cache")
            )
            assert loaded.features == features.features_of(config, chat=part.chat)
    text = {"role": datasets.Value("string"), "content": datasets.Value("string")}
    for chat, kind in ((True, datasets.List(text)), (False, datasets.Value("string"))):
        found = features.features_of("pairs", chat=chat)
        assert [found[name] for name in ("prompt", "chosen", "rejected")] == [kind] * 3


def test_large_data_goes_into_several_files_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SHARD_BYTES", 1)
    monkeypatch.setattr("maskdpo.io.parquet.ROWS_PER_GROUP", 7)
    files = make_files(tmp_path / "in", test_size=0)
    write_data(tmp_path / "out", Files(*files))
    names = sorted(file.name for file in (tmp_path / "out" / "prompts").iterdir())
    assert names == ["train-00000.parquet", "train-00001.parquet", "train-00002.parquet"]
    assert [pq.read_metadata(tmp_path / "out" / "prompts" / name).num_rows for name in names] == [7, 7, 6]
    assert split(tmp_path / "out", "prompts", Prompt) == list(read_records(files.prompts, Prompt))


def fails(files: RecordFiles, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        write_data(folder / "out", Files(*files))
    return str(caught.value).replace(f"{folder}/", "")


def test_chat_and_raw_pairs_are_no_one_dataset(tmp_path: Path) -> None:
    chat, raw = make_files(tmp_path / "chat"), make_files(tmp_path / "raw", raw=True)
    train = list(read_records(chat.pairs, Pair))
    mixed = [train[0], next(iter(read_records(raw.pairs, Pair))).model_copy(update={"id": "other"})]
    write_records(chat.pairs, mixed)
    message = (
        "prompt: this one is plain text (`raw`), those before it are chat messages; a column of pairs has one type"
    )
    assert fails(chat, tmp_path).startswith(f"chat/pairs.jsonl:2: {message}")
    write_records(chat.pairs, train)
    write_records(chat.pairs.with_name("pairs.test.jsonl"), read_records(raw.pairs.with_name("pairs.test.jsonl"), Pair))
    assert fails(chat, tmp_path).startswith(f"chat/pairs.test.jsonl:1: {message}")


def test_what_refers_to_nothing_or_leaks_is_refused_with_its_line(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in")
    test = files.pairs.with_name("pairs.test.jsonl")
    kept = test.read_text()
    leaked = {**json.loads(kept.splitlines()[0]), "topic": json.loads(files.pairs.read_text().splitlines()[0])["topic"]}
    write(test, [leaked])
    assert fails(files, tmp_path) == (
        f"in/pairs.test.jsonl:1: topic: {leaked['topic']!r} has pairs in pairs.jsonl, too: it is not held out"
    )
    test.write_text(kept)
    write(files.annotations, [answer(0, True, False), answer(77, True, False)])
    assert fails(files, tmp_path) == "in/annotations.jsonl:2: prompt_id: no prompt has the id 'q77'"
    write(files.prompts, [prompt(0)])
    assert fails(files, tmp_path) == "in/pairs.jsonl:2: prompt_id: no prompt has the id 'q1'"
    assert "is a dataset already" in fails(files._replace(pairs=Path("hub:u/n")), tmp_path)
