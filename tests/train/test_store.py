"""Pairs and reference log-probs on disk are those that are computed directly, and never half of them."""

import copy
import errno
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attempts import forks
from test_run import RIGHT, WRONG, cache_folder, config_for
from train_helpers import TEMPLATES, fast_tokenizer, make_pair, random_model

from maskdpo.errors import InputError, UserError
from maskdpo.io import blocks as input_blocks
from maskdpo.io import write_records
from maskdpo.models import load_tokenizer
from maskdpo.schemas import Pair
from maskdpo.train.config import TrainConfig
from maskdpo.train.data import blocks, processes, read
from maskdpo.train.data.encode import encoder_for
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.data.read import read_pairs
from maskdpo.train.data.store import StoredPairs, write_store
from maskdpo.train.run import reference, stored_reference
from maskdpo.train.step import Trainer

__all__ = ["cache_folder"]

TEXTS = [" Paris lies on the Seine.", " 你好，世界。", " Zu\u0308rich, naïve 😀!", "\n\n- one\n- two", " It is old."]


def some_pairs(number: int = 30, **fields: Any) -> list[Pair]:
    def answer(i: int) -> list[tuple[str, Any]]:
        return [(TEXTS[(i + j) % len(TEXTS)], (RIGHT, WRONG, None)[(i + j) % 3]) for j in range(2 + i % 4)]

    return [
        make_pair(
            [("Yes.", RIGHT), *answer(i)],
            [("No.", WRONG), *answer(i + 1)],
            id=f"pair-{i}é",
            prompt="Tell me " * (i % 7 + 1),
            weight=1 + i / 7,
            chosen_score=0.9,
            rejected_score=i / 50,
            **fields,
        )
        for i in range(number)
    ]


def check_same(found: EncodedPair, expected: EncodedPair) -> None:
    assert (found.id, found.weight, found.score_gap) == (expected.id, expected.weight, expected.score_gap)
    for ours, theirs in (
        (found.prompt_ids, expected.prompt_ids),
        (found.chosen.ids, expected.chosen.ids),
        (found.chosen.weights, expected.chosen.weights),
        (found.rejected.ids, expected.rejected.ids),
        (found.rejected.weights, expected.rejected.weights),
    ):
        assert ours.dtype == theirs.dtype
        assert ours.tolist() == theirs.tolist()


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LARGE", 1)
    monkeypatch.setattr(processes, "cores", lambda: 2)
    monkeypatch.setattr(input_blocks, "LINES_BYTES", 2_000)
    monkeypatch.setattr(input_blocks, "ROWS", 7)


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    write_records(file, some_pairs())
    return file


@pytest.mark.parametrize("template", [*TEMPLATES, "raw"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("byte-level", {}),
        ("llama2-like", {"method": "soft"}),
        ("unigram-bytes", {"method": "dpo", "eos": "last_sentence"}),
        ("llama3-like", {"max_length": 24, "method": "strict"}),
    ],
)
def test_pairs_on_disk_are_those_encoded_one_by_one(
    template: str, name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    tokenizer = fast_tokenizer(name, TEMPLATES.get(template))
    raw: dict[str, Any] = {"raw": True} if template == "raw" else {}
    config = TrainConfig(model="tiny", **settings)
    write_records(tmp_path / "pairs.jsonl", some_pairs(**raw))
    found = read_pairs(tmp_path / "pairs.jsonl", config, tokenizer)
    one_by_one = encoder_for(config, tokenizer)
    expected = [each for pair in some_pairs(**raw) if isinstance(each := one_by_one.encode(pair), EncodedPair)]
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        check_same(ours, theirs)
        assert found[found.index_of(theirs.id)].id == theirs.id
    assert found.dropped.total() + len(expected) == 30
    assert found.without_end == one_by_one.without_end
    assert found.lengths.sum(1).tolist() == [pair.tokens for pair in expected]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_several_processes_encode_as_one(
    suffix: str, tiny_model: str, tmp_path: Path, many_processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, tokenizer = tmp_path / f"pairs{suffix}", load_tokenizer(tiny_model)
    config = config_for(tiny_model, method="soft")
    write_records(file, some_pairs())
    found = read_pairs(file, config, tokenizer)
    monkeypatch.setattr(processes, "LARGE", 10**9)
    for ours, theirs in zip(found, read_pairs(file, config, tokenizer, use_cache=False), strict=True):
        check_same(ours, theirs)
    assert len(found) > 20


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_the_first_bad_line_of_the_file_is_named(
    several: bool, tiny_model: str, pairs_file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if several:
        request.getfixturevalue("many_processes")
    lines = pairs_file.read_bytes().splitlines(keepends=True)
    config, tokenizer = config_for(tiny_model), load_tokenizer(tiny_model)
    file = tmp_path / "bad.jsonl"
    for bad, message in (
        ({20: b"{}\n", 12: lines[2]}, r"bad\.jsonl:13: id: duplicate id 'pair-2é', first on line 3"),
        ({20: lines[3], 12: lines[5].replace(b"contradictory", b"perhaps")}, r"bad\.jsonl:13: .*label"),
    ):
        file.write_bytes(b"".join(bad.get(i, line) for i, line in enumerate(lines)))
        with pytest.raises(InputError, match=message):
            read_pairs(file, config, tokenizer)
        assert len(read_pairs(file, config, tokenizer, limit=12)) <= 12, "what is behind is not read"


def test_a_folder_that_is_torn_or_foreign_is_made_anew(tiny_model: str, pairs_file: Path, cache_folder: Path) -> None:
    config, tokenizer = config_for(tiny_model), load_tokenizer(tiny_model)
    whole = [pair.chosen.ids.tolist() for pair in read_pairs(pairs_file, config, tokenizer)]
    (folder,) = [path for path in (cache_folder / "pairs").iterdir() if path.is_dir()]

    def tear() -> None:
        os.truncate(folder / "ids", 100)

    def forget() -> None:
        (folder / "meta.json").unlink()

    def replace() -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "meta.json").write_text('{"key": "another"}')

    def leave_a_part() -> None:
        shutil.move(folder, folder.with_name(f"{folder.name}.0a1b.part"))

    harms: list[Callable[[], None]] = [tear, forget, replace, leave_a_part]
    for harm in harms:
        harm()
        assert [pair.chosen.ids.tolist() for pair in read_pairs(pairs_file, config, tokenizer)] == whole
        assert [path.name for path in (cache_folder / "pairs").iterdir() if path.is_dir()] == [folder.name]


def test_other_settings_have_other_folders_and_the_same_ones_are_not_encoded_again(
    tiny_model: str, pairs_file: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    for settings in ({}, {"method": "dpo"}, {"eos": "drop"}, {"max_length": 40}):
        read_pairs(pairs_file, config_for(tiny_model, **settings), tokenizer)
    assert len([path for path in (cache_folder / "pairs").iterdir() if path.is_dir()]) == 4
    monkeypatch.setattr(read, "encoded_blocks", lambda *_, **__: pytest.fail("encoded again"))
    assert len(read_pairs(pairs_file, config_for(tiny_model, lr=0.1), tokenizer, keep=False)) > 20


def test_special_tokens_count_by_their_names(tiny_model: str, pairs_file: Path) -> None:
    """A template may write any of them."""
    tokenizer = copy.deepcopy(fast_tokenizer("byte-level", TEMPLATES["chatml"]))
    encoder = encoder_for(config_for(tiny_model), tokenizer)
    before, ids = read._keys(pairs_file, encoder, tokenizer, None, None), set(tokenizer.all_special_ids)
    tokenizer.bos_token, tokenizer.eos_token = tokenizer.eos_token, tokenizer.bos_token
    assert set(tokenizer.all_special_ids) == ids
    assert read._keys(pairs_file, encoder, tokenizer, None, None) != before


@pytest.mark.parametrize(("fields", "folders"), [({}, 2), ({"prompt_date": "2026-01-02"}, 1), ({"raw": True}, 1)])
def test_the_day_counts_only_where_a_pair_records_none(
    fields: dict[str, Any], folders: int, tiny_model: str, cache_folder: Path, tmp_path: Path
) -> None:
    tokenizer = fast_tokenizer("byte-level", "{{ strftime_now('%d %b %Y') }}" + TEMPLATES["chatml"])
    write_records(tmp_path / "pairs.jsonl", some_pairs(**fields))
    config = config_for(tiny_model)
    for day in (3, 4, 3):
        found = read_pairs(tmp_path / "pairs.jsonl", config, tokenizer, date(2026, 5, day))
        same = encoder_for(config, tokenizer, date(2026, 5, day))
        one = next(pair for pair in some_pairs(**fields) if pair.id == found[0].id)
        encoded = same.encode(one)
        assert isinstance(encoded, EncodedPair)
        check_same(found[0], encoded)
    assert len(names_of(cache_folder / "pairs")) == folders


def test_a_file_that_is_changed_while_it_is_read_is_not_stored(
    tiny_model: str, pairs_file: Path, cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, encode = tmp_path / "pairs.jsonl", read.encoded_blocks
    shutil.copy(pairs_file, file)

    def changing(*given: Any, **named: Any) -> Any:
        file.write_bytes(file.read_bytes() + b"\n")
        return encode(*given, **named)

    monkeypatch.setattr(read, "encoded_blocks", changing)
    with pytest.raises(InputError, match="was changed while it was read"):
        read_pairs(file, config_for(tiny_model), load_tokenizer(tiny_model))
    assert names_of(cache_folder / "pairs") == []


def test_without_the_cache_nothing_stays(
    tiny_model: str, pairs_file: Path, cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = read_pairs(pairs_file, config_for(tiny_model), load_tokenizer(tiny_model), use_cache=False)
    assert found[3].id == "pair-3é"
    assert not (cache_folder / "pairs").exists()
    assert list(tmp_path.glob("maskdpo-*")) == []


def encode_slowly(pairs: str, model: str) -> None:
    """For a process that is killed meanwhile."""
    encode = processes.encode_block

    def slow(*given: Any) -> Any:
        time.sleep(0.2)
        return encode(*given)

    processes.encode_block = slow
    input_blocks.LINES_BYTES = 2_000
    read_pairs(Path(pairs), config_for(model), load_tokenizer(model))


@pytest.mark.slow
def test_two_at_once_of_which_one_is_killed(tiny_model: str, pairs_file: Path, cache_folder: Path) -> None:
    env = os.environ | {"MASKDPO_CACHE": str(cache_folder)}
    first, second = (forks().start("test_store:encode_slowly", str(pairs_file), tiny_model, env=env) for _ in range(2))
    deadline = time.monotonic() + 60
    while not list(cache_folder.glob("pairs/*.part/ids")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    codes = [first.done().code, second.done().code]
    assert codes == [-signal.SIGKILL, 0], second.done().err
    (folder,) = [path for path in (cache_folder / "pairs").iterdir() if path.is_dir()]
    assert len(StoredPairs(folder)) > 20


def private_megabytes(folder: str) -> None:
    """Print by how much reading all pairs of a folder makes this process grow, page cache of mapped files apart."""

    def own() -> float:
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
        return int(line.split()[1]) / 1e3

    before = own()
    pairs = StoredPairs(Path(folder))
    tokens = sum(pair.tokens for pair in pairs)
    assert pairs[pairs.index_of("pair-7")].id == "pair-7"
    assert tokens == pairs.lengths.sum()
    print(own() - before)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells no process its memory")
def test_pairs_on_disk_take_no_memory(tmp_path: Path) -> None:
    number, size = 8_000, (100, 400, 400)
    rng = np.random.default_rng(0)

    def block(first: int) -> blocks.Encoded:
        names = [f"pair-{i}" for i in range(first, first + 1000)]
        rows = np.array([(*size, len(name), 1.0, 0.0) for name in names], dtype=blocks.ROW)
        ids = rng.integers(0, 400, 1000 * sum(size), dtype=np.int32)
        weights = np.ones(1000 * sum(size[1:]), dtype=np.float32)
        return blocks.Encoded([], rows, ids, weights, "".join(names).encode())

    write_store(tmp_path / "key", (block(first) for first in range(0, number, 1000)))
    on_disk = sum(file.stat().st_size for file in (tmp_path / "key").iterdir()) / 1e6
    assert on_disk > 50
    done = forks().run("test_store:private_megabytes", str(tmp_path / "key"))
    assert done.code == 0, done.err
    assert float(done.out) < 10


@pytest.fixture
def stored(tiny_model: str, pairs_file: Path, cache_folder: Path) -> Iterator[tuple[Trainer, StoredPairs]]:
    config = config_for(tiny_model)
    pairs = read_pairs(pairs_file, config, load_tokenizer(tiny_model))
    yield Trainer(random_model(vocab=400), config, "shared"), pairs


def test_a_reference_that_is_begun_is_finished(
    stored: tuple[Trainer, StoredPairs], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, pairs = stored
    monkeypatch.setattr(stored_reference, "PART", 8)
    expected = {}
    for begin in range(0, len(pairs), 8):
        expected |= reference.compute_reference(trainer, pairs[begin : begin + 8])
    compute, calls = reference.compute_reference, []

    def die(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(*given)

    monkeypatch.setattr(reference, "compute_reference", die)
    with pytest.raises(KeyboardInterrupt):
        reference.find_reference(trainer, pairs, True)
    (part,) = (cache_folder / "reference").iterdir()
    with part.open("ab") as file:
        file.write(b"torn")
    found = reference.find_reference(trainer, pairs, True)
    assert len(calls) == 3 + -(-len(pairs) // 8) - 2
    for name, logps in expected.items():
        np.testing.assert_array_equal(found[name], logps)
    assert len(found) == len(expected)
    (whole,) = (cache_folder / "reference").iterdir()
    assert whole.suffix == ".f32"
    again = reference.find_reference(trainer, pairs, True)
    assert len(calls) == 3 + -(-len(pairs) // 8) - 2, "it is read"
    np.testing.assert_array_equal(again[pairs[-1].id], expected[pairs[-1].id])
    without = reference.find_reference(trainer, pairs, False)
    np.testing.assert_array_equal(without[pairs[-1].id], expected[pairs[-1].id])
    with pytest.raises(KeyError):
        found["nobody"]


def test_a_reference_that_another_run_writes_is_computed_aside(
    stored: tuple[Trainer, StoredPairs], cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, pairs = stored
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = cache_folder / "reference"
    file = folder / reference.cache_file(trainer.config.model, reference._precision(trainer), pairs)
    with stored_reference.begun_reference(file, trainer.ranks) as other:
        found = reference.find_reference(trainer, pairs, True)
        assert names_of(folder) == [other.name.name]
        assert len(found[pairs[0].id]) == pairs.lengths[0, 1:].sum()
    assert list(tmp_path.glob("maskdpo-*")) == []


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Lustre without ``flock``."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("maskdpo.io.lock.fcntl.flock", refuse)


def test_without_locks_two_references_at_once_are_whole(
    stored: tuple[Trainer, StoredPairs], cache_folder: Path, no_locks: None
) -> None:
    trainer, pairs = stored
    folder = cache_folder / "reference"
    file = folder / reference.cache_file(trainer.config.model, reference._precision(trainer), pairs)

    def compute(some: Any) -> Any:
        return reference.compute_reference(trainer, some)

    with stored_reference.begun_reference(file, trainer.ranks) as first:
        assert first.part is not None
        first.part.write(b"begun")
        found = reference.find_reference(trainer, pairs, True)
        stored_reference.write_reference(first, pairs, trainer.ranks, compute, lambda _: None)
    assert names_of(folder) == [file.name]
    again = stored_reference.StoredReference(file, pairs)
    for name in found:
        np.testing.assert_array_equal(again[name], found[name])
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match="does not hold the log-probs of all pairs"):
        stored_reference.StoredReference(file, pairs)


def test_without_locks_two_runs_encode_the_same_pairs_at_once(
    tiny_model: str, pairs_file: Path, cache_folder: Path, no_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, tokenizer, encode = config_for(tiny_model), load_tokenizer(tiny_model), read.encoded_blocks
    inner: list[StoredPairs] = []

    def meanwhile(*given: Any, **named: Any) -> Any:
        for number, block in enumerate(encode(*given, **named)):
            if not number and not inner:
                monkeypatch.setattr(read, "encoded_blocks", encode)
                inner.append(read_pairs(pairs_file, config, tokenizer))
            yield block

    monkeypatch.setattr(read, "encoded_blocks", meanwhile)
    outer = read_pairs(pairs_file, config, tokenizer)
    for ours, theirs in zip(outer, inner[0], strict=True):
        check_same(ours, theirs)
    assert len(names_of(cache_folder / "pairs")) == 1


def test_each_arithmetic_has_a_reference_of_its_own(tiny_model: str) -> None:
    arithmetics: list[tuple[torch.dtype, dict[str, Any]]] = [
        (torch.float32, {}),
        (torch.float32, {"compile": True}),
        (torch.float32, {"dtype": "bfloat16"}),
        (torch.bfloat16, {"dtype": "bfloat16", "weights": "bfloat16"}),
        (torch.bfloat16, {"dtype": "bfloat16", "lora_r": 4}),
        (torch.bfloat16, {"dtype": "bfloat16", "lora_r": 4, "load_in_4bit": True}),
    ]
    trainers = [
        Trainer(random_model().to(stored_in), config_for(tiny_model, **settings), "shared")
        for stored_in, settings in arithmetics
    ]
    assert len({reference._precision(trainer) for trainer in trainers}) == len(arithmetics)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """To write more fails, as it does where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("use_cache", "variable"), [(True, "MASKDPO_CACHE"), (False, "TMPDIR")])
def test_a_full_disk_is_told_with_the_variable_that_helps(
    use_cache: bool,
    variable: str,
    stored: tuple[Trainer, StoredPairs],
    tiny_model: str,
    pairs_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    config, tokenizer = config_for(tiny_model, eos="drop"), load_tokenizer(tiny_model)
    message = rf"cannot be written: File too large\. Set {variable} to a folder with room"
    with files_of_at_most(64):
        with pytest.raises(UserError, match=f"log-probs of the reference {message}"):
            reference.find_reference(*stored, use_cache)
        with pytest.raises(UserError, match=f"encoded pairs {message}"):
            read_pairs(pairs_file, config, tokenizer, use_cache=use_cache)
    assert list(tmp_path.glob("maskdpo-*")) == []
