"""``--shard I/N`` and ``merge``: the parts of a run, put together, are what one run would have written."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from command_line import exit_code

import maskdpo
from maskdpo.annotate.judges.llm import LLMJudge
from maskdpo.annotate.labelling import annotate
from maskdpo.annotate.protocol import load_protocol
from maskdpo.annotate.stats import AnnotateStats
from maskdpo.backends.base import Completion, Context, Failure, Pick, Reply, Request, Sampling
from maskdpo.backends.price import Purse
from maskdpo.errors import InputError, UserError
from maskdpo.io import read_records
from maskdpo.lineage import problems, trace
from maskdpo.merge.merge import merge
from maskdpo.run_record import RunMeta, Spent, meta_file
from maskdpo.sample import sample
from maskdpo.schemas import Annotation, Prompt, Response, Status
from maskdpo.shard import Shard, part_of, read_shard

ROOT = Path(__file__).resolve().parents[1]
RIVERS = ["Seine", "Tiber", "Thames", "Spree", "Vltava", "Danube", "Neva", "Tagus", "Vistula", "Aare"]
SAMPLING = Sampling(n=2, max_tokens=8)


class Scripted:
    """A backend that answers later prompts first, at a price, and fails where it is told to."""

    def __init__(self, *, fail: Iterable[str] = (), model: str = "scripted", today: date | None = None) -> None:
        self.model = model
        self.template_options: dict[str, Any] = {}
        self.today = today
        self.asked: list[str] = []
        self.purse = Purse(None)
        self._fail, self._dated = set(fail), today is not None

    def writes_date(self) -> bool:
        return self._dated

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for request in reversed(list(requests)):
            key = str(request.key)
            self.asked.append(key)
            self.purse.spent += Spent(prompt_tokens=3, completion_tokens=5, cost=0.008)
            if key in self._fail:
                yield Reply(key, failure=Failure(Status.API_ERROR, "server on fire"))
                continue
            river = RIVERS[int(key[1:]) % 10]
            texts = (f"The {river} crosses the city {key}.", f"No river crosses the city {key}. It is dry.")
            yield Reply(key, tuple(Completion(text, "stop") for text in texts), prompt_tokens=3, completion_tokens=5)


class World:
    """A folder with ten prompts, answers to all of them, and functions that run the stages on a part or on all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.prompts = folder, folder / "prompts.jsonl"
        self.write_prompts(10)

    def write_prompts(self, count: int) -> None:
        rows = [
            {"id": f"q{i}", "prompt": f"Which river crosses the city q{i}?", "reference": f"The {river} crosses q{i}."}
            for i in range(count)
            for river in [RIVERS[i % 10]]
        ]
        self.prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def sample(self, name: str, shard: str | None = None, **options: Any) -> Path:
        made: Shard | None = read_shard(shard)
        backend = options.pop("backend", None) or Scripted()
        sample(self.prompts, self.folder / name, backend, options.pop("sampling", SAMPLING), shard=made, **options)
        return self.folder / name

    def annotate(self, name: str, responses: Path, shard: str | None = None) -> Path:
        self.annotated(name, responses, shard)
        return self.folder / name

    def annotated(self, name: str, responses: Path, shard: str | None = None) -> AnnotateStats:
        judge, cut = maskdpo.make_judge("lexical"), maskdpo.make_splitter()
        return annotate(self.prompts, responses, self.folder / name, judge, cut, shard=read_shard(shard))

    def halves(self, **options: Any) -> list[Path]:
        return [self.sample(f"r{i}.jsonl", f"{i}/2", **options) for i in (1, 2)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    return World(tmp_path)


def record(out: Path) -> RunMeta:
    return RunMeta.model_validate_json(meta_file(out).read_bytes())


def lasting(out: Path) -> dict[str, Any]:
    """The record of an output, without times, and without what says how and where its command was called."""
    told = record(out).model_dump(exclude={"begun", "seconds", "command_line", "arguments", "outputs"})
    told["counts"] |= {"seconds": 0, "this_run": None}
    return told | {"output": list(record(out).outputs.values())}


# --- parts ---------------------------------------------------------------------------------------------


def test_every_prompt_is_in_one_part_and_stays_there() -> None:
    assert [part_of(f"q{i}", 2) for i in range(12)] == [2, 1, 1, 2, 1, 1, 2, 1, 2, 2, 1, 1]  # for ever
    sizes = [sum(Shard(part, 7).holds(f"prompt {i}") for i in range(7000)) for part in range(1, 8)]
    assert sum(sizes) == 7000
    assert all(900 < size < 1100 for size in sizes)
    assert part_of("half an emoji \ud83d", 1) == 1


@pytest.mark.parametrize("wrong", ["0/2", "3/2", "1", "1/0", "-1/2", "1/2/3", "one/two", "", " 1/2", "1.0/2"])
def test_what_is_no_shard_is_refused(wrong: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("sample", world.prompts, "--model", "nowhere", "--out", "r.jsonl", f"--shard={wrong}")
    assert exit_code(*words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"--shard: {wrong!r} is not of the form I/N, with I from 1 to N, such as 1/8" in said


def test_a_part_is_an_output_of_its_own_that_no_other_part_continues(world: World) -> None:
    first = world.sample("r1.jsonl", "1/2")
    expected = [f"q{i}-{k}" for i in range(10) if part_of(f"q{i}", 2) == 1 for k in range(2)]
    assert [response.id for response in read_records(first, Response)] == expected
    assert record(first).options["shard"] == "1/2"
    again = Scripted()
    before = first.read_bytes(), meta_file(first).read_bytes()
    world.sample("r1.jsonl", "1/2", backend=again)
    assert again.asked == []
    assert (first.read_bytes(), meta_file(first).read_bytes()) == before
    for other in ("2/2", "1/3", None):
        with pytest.raises(UserError, match="shard: '1/2' ->"):
            world.sample("r1.jsonl", other)
    world.sample("whole.jsonl")
    with pytest.raises(UserError, match="shard: None -> '1/2'"):
        world.sample("whole.jsonl", "1/2")


def test_a_limit_counts_the_input_of_which_the_part_is_taken(world: World) -> None:
    asked = [Scripted(), Scripted(), Scripted()]
    for i, name in enumerate(("r1.jsonl", "r2.jsonl")):
        world.sample(name, f"{i + 1}/2", backend=asked[i], limit=5)
    assert sorted(asked[0].asked + asked[1].asked) == ["q0", "q1", "q2", "q3", "q4"]
    with pytest.raises(InputError, match=r"r1.jsonl: holds 6 of the 10 records of part 1/2; repeat its command"):
        merge([world.folder / "r1.jsonl", world.folder / "r2.jsonl"], world.folder / "r.jsonl")
    world.sample("r1.jsonl", "1/2", backend=asked[2])
    assert sorted(asked[2].asked) == ["q5", "q7"]


def test_an_empty_part_is_complete_in_every_stage(world: World) -> None:
    world.write_prompts(3)
    parts = [world.sample(f"r{i}.jsonl", f"{i}/8") for i in range(1, 9)]
    empty = [i for i, part in enumerate(parts, 1) if not part.stat().st_size]
    assert len(empty) >= 5
    assert {record(part).status for part in parts} == {"complete"}
    judged = [world.annotate(f"a{i}.jsonl", part, f"{i}/8") for i, part in enumerate(parts, 1)]
    assert {record(part).status for part in judged} == {"complete"}
    merge(parts, world.folder / "responses.jsonl")
    merge(judged, world.folder / "annotations.jsonl")
    assert len(list(read_records(world.folder / "annotations.jsonl", Annotation))) == 6
    with pytest.raises(InputError, match="holds no records"):  # without a shard nothing says that it may be empty
        world.annotate("x.jsonl", parts[empty[0] - 1])


# --- two halves are one run ----------------------------------------------------------------------------


def test_two_halves_of_sample_equal_one_run(world: World) -> None:
    whole, out = world.sample("whole.jsonl"), world.folder / "merged.jsonl"
    halves = world.halves()
    stats = merge(halves[::-1], out)  # in any order
    assert (stats.command, stats.parts, stats.records, stats.missing) == ("sample", 2, 20, 0)
    assert out.read_bytes() == whole.read_bytes()
    assert lasting(out) == lasting(whole)
    assert record(out).spent == record(whole).spent
    assert record(out).begun == record(halves[0]).begun
    assert record(out).seconds >= sum(record(half).seconds for half in halves)
    backend, before = Scripted(), meta_file(out).read_bytes()
    world.sample("merged.jsonl", backend=backend)
    assert backend.asked == []
    assert meta_file(out).read_bytes() == before
    assert sorted(half.name for half in world.folder.glob("r?.jsonl*")) == [
        "r1.jsonl", "r1.jsonl.meta.json", "r2.jsonl", "r2.jsonl.meta.json",
    ]  # fmt: skip


@pytest.mark.parametrize("told", [True, False])
def test_labels_of_the_responses_of_each_part_equal_those_of_one_run(world: World, told: bool) -> None:
    halves = world.halves()
    responses = world.folder / "responses.jsonl"
    parts = [
        world.annotate(f"a{i}.jsonl", half, f"{i}/2" if told else None) for i, half in enumerate(halves, 1)
    ]  # fmt: skip
    out = world.folder / "annotations.jsonl"
    with pytest.raises(UserError, match=r"Merge them first: maskdpo merge r1.jsonl r2.jsonl --out \S*responses.jsonl"):
        merge(parts, out)
    assert not out.exists()
    merge(halves, responses)
    whole = world.annotate("whole.jsonl", responses)
    merge(parts[::-1], out)
    assert out.read_bytes() == whole.read_bytes()
    assert lasting(out) == lasting(whole)
    assert record(out).paths == {"prompts": "prompts.jsonl", "responses": "responses.jsonl"}
    before = meta_file(out).read_bytes()
    assert world.annotated("annotations.jsonl", responses).run_responses == 0
    assert meta_file(out).read_bytes() == before
    assert list(problems(trace(out))) == []
    assert [node.path.name for node in trace(out).inputs] == ["prompts.jsonl", "responses.jsonl"]
    assert [node.path.name for node in trace(out).inputs[1].inputs] == ["prompts.jsonl"]


def test_labels_of_the_same_responses_in_two_parts_equal_those_of_one_run(world: World) -> None:
    responses = world.sample("responses.jsonl")
    parts = [world.annotate(f"a{i}.jsonl", responses, f"{i}/2") for i in (1, 2)]
    whole, out = world.annotate("whole.jsonl", responses), world.folder / "annotations.jsonl"
    merge(parts, out)
    assert out.read_bytes() == whole.read_bytes()
    assert lasting(out) == lasting(whole)


def test_real_answers_of_two_halves_equal_those_of_one_run(world: World, tiny_model: str) -> None:
    world.write_prompts(4)
    common = ("--model", tiny_model, "--n", "2", "--max-tokens", "12", "--device", "cpu")
    for name, shard in (("whole", ()), ("a", ("--shard", "1/2")), ("b", ("--shard", "2/2"))):
        assert exit_code("sample", world.prompts, *common, *shard, "--out", f"{name}.jsonl") == 0
    assert exit_code("merge", "b.jsonl", "a.jsonl", "--out", "merged.jsonl") == 0
    assert Path("merged.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert record(Path("merged.jsonl")).command_line == "maskdpo merge b.jsonl a.jsonl --out merged.jsonl"
    assert lasting(Path("merged.jsonl")) == lasting(Path("whole.jsonl"))


def test_what_failed_is_counted_kept_and_asked_again_of_the_merged_file(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    halves = world.halves(backend=Scripted(fail=["q2", "q3"]))
    assert exit_code("merge", *halves, "--out", "merged.jsonl") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "4 answers are missing, because calls failed; `maskdpo sample` with this output" in said
    assert record(Path("merged.jsonl")).counts["failed"] == 2
    backend = Scripted()
    merged = world.sample("merged.jsonl", backend=backend)
    assert sorted(backend.asked) == ["q2", "q3"]
    assert merged.read_bytes() == world.sample("whole.jsonl").read_bytes()


# --- data that grows -----------------------------------------------------------------------------------


def test_growing_data_continues_parts_and_merged_files(world: World) -> None:
    halves, out = world.halves(), world.folder / "merged.jsonl"
    merge(halves, out)
    grown = max(i for i in range(11, 40) if {part_of(f"q{k}", 2) for k in range(10, i)} == {1})
    world.write_prompts(grown)  # nothing of what is new is in part 2
    with pytest.raises(InputError, match=r"prompts.jsonl: has changed since r1.jsonl was made from it"):
        merge([Path("r1.jsonl"), Path("r2.jsonl")], out)
    asked = [Scripted(), Scripted()]
    for i in (1, 2):
        world.sample(f"r{i}.jsonl", f"{i}/2", backend=asked[i - 1])
    assert sorted(asked[0].asked) == [f"q{i}" for i in range(10, grown)]
    assert asked[1].asked == []
    merge(halves, out)  # holds all that it held before
    assert out.read_bytes() == world.sample("whole.jsonl").read_bytes()
    world.write_prompts(30)
    backend = Scripted()
    world.sample("merged.jsonl", backend=backend)
    assert sorted(backend.asked) == sorted(f"q{i}" for i in range(grown, 30))
    world.sample("whole.jsonl")
    assert out.read_bytes() == (world.folder / "whole.jsonl").read_bytes()
    for i in (1, 2):
        world.sample(f"r{i}.jsonl", f"{i}/2", backend=Scripted(fail=["q29"]))
    with pytest.raises(InputError, match=r"merged.jsonl: is there already, and its record 'q29-0' is not in the parts"):
        merge(halves, out)


def test_labels_of_parts_go_on_with_growing_responses(world: World) -> None:
    responses = world.sample("responses.jsonl")
    parts = [world.annotate(f"a{i}.jsonl", responses, f"{i}/2") for i in (1, 2)]
    world.write_prompts(11)
    world.sample("responses.jsonl")
    again = [world.annotated(f"a{i}.jsonl", responses, f"{i}/2").run_responses for i in (1, 2)]
    assert again == [2, 0]  # q10 is in part 1
    merge(parts, world.folder / "annotations.jsonl")
    whole = world.annotate("whole.jsonl", responses)
    assert (world.folder / "annotations.jsonl").read_bytes() == whole.read_bytes()


# --- what does not belong together ---------------------------------------------------------------------


def refused(parts: Iterable[Path | str], capsys: pytest.CaptureFixture[str], out: str = "out.jsonl") -> str:
    """What the command says; it writes nothing."""
    assert exit_code("merge", *parts, "--out", out) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in said
    assert not Path("out.jsonl").exists()
    return said


def test_missing_and_doubled_parts(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for i in (1, 2, 3, 4):
        world.sample(f"r{i}.jsonl", f"{i}/4")
    world.sample("other.jsonl", "2/4")
    world.sample("half.jsonl", "1/2")
    said = refused(["r1.jsonl", "r4.jsonl"], capsys)
    assert "of 4 parts these are missing: 2/4, 3/4. Give their outputs too" in said
    assert "`maskdpo sample` with --shard 2/4 makes one" in said
    said = refused(["r1.jsonl", "r2.jsonl", "other.jsonl", "r3.jsonl", "r4.jsonl"], capsys)
    assert "other.jsonl: is part 2/4, as r2.jsonl is; give each part once" in said
    assert "r4.jsonl: is given twice" in refused(["r4.jsonl", "./r4.jsonl"], capsys)
    said = refused(["half.jsonl", "r2.jsonl", "r3.jsonl", "r4.jsonl"], capsys)
    assert "r2.jsonl: is part 2/4, and half.jsonl is part 1/2" in said
    assert "gone.jsonl: no such file" in refused(["r1.jsonl", "gone.jsonl"], capsys)


def test_foreign_parts(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = world.halves()
    greedy = world.sample("greedy.jsonl", "2/2", sampling=Sampling(n=2, max_tokens=8, temperature=0))
    said = refused([first, greedy], capsys)
    assert "greedy.jsonl: is of another run than" in said
    assert "temperature is 0 here and 1.0 there. Parts need the same options: repeat the command of" in said
    assert f"{greedy} with those of the other part and with --restart, which makes all of it anew. It was: " in said
    labels = world.annotate("a2.jsonl", second, "2/2")
    assert "a2.jsonl: is an output of `maskdpo annotate`" in refused([first, labels], capsys)
    whole = world.sample("whole.jsonl")
    assert "whole.jsonl: is no part: `maskdpo sample` made it without --shard" in refused([whole], capsys)
    assert "prompts.jsonl: its record prompts.jsonl.meta.json is missing" in refused([world.prompts], capsys)
    (world.folder / "elsewhere").mkdir()
    elsewhere = World(world.folder / "elsewhere")
    elsewhere.write_prompts(12)
    other = elsewhere.sample("r2.jsonl", "2/2")
    said = refused([first, other], capsys)
    assert "the parts have read different prompts: prompts.jsonl, elsewhere/prompts.jsonl" in said
    assert "Repeat the commands of the parts with the same prompts" in said
    meta_file(second).write_text(meta_file(second).read_text().replace('"shard": "2/2"', '"shard": "1/2"'))
    meta_file(first).write_text(meta_file(first).read_text().replace('"shard": "1/2"', '"shard": "2/2"'))
    assert "belongs to part" in refused([first, second], capsys)


def test_parts_of_labels_of_two_samplings_are_no_parts_of_one_run(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    first = world.sample("r1.jsonl", "1/2")
    second = world.sample("r2.jsonl", "2/2", backend=Scripted(model="another"))
    labels = [world.annotate(f"a{i}.jsonl", part, f"{i}/2") for i, part in enumerate((first, second), 1)]
    said = refused(labels, capsys)
    assert "the parts have read different responses: r1.jsonl, r2.jsonl. They are not the parts of one run" in said
    assert "model is 'another' here and 'scripted' there" in said


def test_responses_of_another_part_are_refused_and_never_merged(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = world.halves()
    message = r"r2.jsonl: is part 2/2 of its run, not 1/2; give the output of part 1/2"
    with pytest.raises(InputError, match=message):
        world.annotate("a1.jsonl", second, "1/2")
    words = ("annotate", world.prompts, second, "--judge", "llm", "--model", "none", "--out", "a1.jsonl", "--dry-run")
    assert exit_code(*words, "--shard", "1/2") == 2
    assert "is part 2/2 of its run, not 1/2" in " ".join(capsys.readouterr().err.split())
    packed = world.folder / "r2.jsonl.gz"
    packed.write_bytes(gzip.compress(second.read_bytes()))
    with pytest.raises(InputError, match="is part 2/2 of its run, not 1/2"):
        world.annotate("a1.jsonl", packed, "1/2")
    assert not list(world.folder.glob("a1*"))

    hidden = meta_file(second).rename(world.folder / "hidden")  # nothing says then what the file is
    labels = [world.annotate(f"a{i}.jsonl", second, f"{i}/2") for i in (1, 2)]
    hidden.rename(meta_file(second))
    said = refused(labels, capsys)
    assert "r2.jsonl: is only part 2/2 of its run, and all of these have read it" in said
    world.annotate("a1.jsonl", first, "1/2")  # the right command mends the part
    merge([first, second], world.folder / "responses.jsonl")
    assert merge(labels, world.folder / "annotations.jsonl").records == 20


def test_all_parts_of_the_responses_may_be_given_together(world: World) -> None:
    files = tuple(world.halves())
    judge, cut = maskdpo.make_judge("lexical"), maskdpo.make_splitter()
    labels = [world.folder / f"a{i}.jsonl" for i in (1, 2, 3)]
    for i, out in enumerate(labels, 1):
        annotate(world.prompts, files, out, judge, cut, shard=Shard(i, 3))
    assert merge(labels, world.folder / "annotations.jsonl").records == 20


def test_parts_of_labels_that_were_given_files_of_two_kinds_go_on_with_one_of_them(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = world.halves()
    responses = world.folder / "responses.jsonl"
    merge([first, second], responses)
    labels = [world.annotate("a1.jsonl", first, "1/2"), world.annotate("a2.jsonl", responses, "2/2")]
    said = refused(labels, capsys)
    assert "responses.jsonl: is no part: `maskdpo sample` made it without --shard, or `maskdpo merge` out of" in said
    assert "Repeat the commands of the parts with the same responses: what they have is kept" in said
    assert world.annotated("a1.jsonl", responses, "1/2").run_responses == 0
    assert merge(labels, world.folder / "annotations.jsonl").records == 20


def test_incomplete_and_damaged_parts(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = world.halves()
    lines = second.read_bytes().splitlines(keepends=True)
    second.write_bytes(b"".join(lines[:-1]))
    said = refused([first, second], capsys)
    assert "r2.jsonl: has changed since its run made it" in said
    assert "r2.jsonl: holds 9 of the 10 records of part 2/2; repeat its command" in said
    second.write_bytes(b"".join(lines)[:-20])
    assert f"r2.jsonl:{len(lines)}: not a JSON object" in refused([first, second], capsys)
    second.write_bytes(b"".join(lines).replace(b"crosses", b"passes"))
    assert exit_code("merge", first, second, "--out", "changed.jsonl") == 0
    assert "r2.jsonl: has changed since its run made it" in " ".join(capsys.readouterr().err.split())
    said = meta_file(second).read_text()
    meta_file(second).write_text(re.sub('"status": "complete"', '"status": "running"', said))
    assert "r2.jsonl: is not complete; repeat its command: " in refused([first, second], capsys)
    meta_file(second).unlink()
    assert "its record r2.jsonl.meta.json is missing" in refused([first, second], capsys)


def test_outputs_that_merge_does_not_replace(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    halves = world.halves()
    (world.folder / "mine.jsonl").write_text("{}\n")
    world.annotate("a.jsonl", halves[0])
    for out, reason in {
        "r1.jsonl": "is an input of this command",
        "mine.jsonl": "no record says that maskdpo made it",
        "a.jsonl": "is an output of `maskdpo annotate`",
        "merged.jsonl.gz": "outputs are not compressed",
        "merged.parquet": "records are appended as they come, which Parquet cannot",
    }.items():
        assert reason in refused(halves, capsys, out)
    merge(halves, Path("merged.jsonl"))
    again = Path("merged.jsonl").read_bytes()
    merge(halves, Path("merged.jsonl"))
    assert Path("merged.jsonl").read_bytes() == again


# --- more ----------------------------------------------------------------------------------------------


def test_parts_that_were_compressed_or_carried_to_another_folder(world: World) -> None:
    whole, halves = world.sample("whole.jsonl"), world.halves()
    away = world.folder / "away"
    away.mkdir()
    packed = away / "r1.jsonl.gz"
    packed.write_bytes(gzip.compress(halves[0].read_bytes()))
    meta_file(halves[0]).rename(away / "r1.jsonl.meta.json")
    halves[1].rename(away / "second.jsonl")
    meta_file(halves[1]).rename(away / "second.jsonl.meta.json")
    with pytest.raises(InputError, match="is missing, and"):
        merge([packed, away / "second.jsonl"], world.folder / "merged.jsonl")
    (away / "questions.jsonl").write_bytes(world.prompts.read_bytes())
    merge([packed, away / "second.jsonl"], world.folder / "merged.jsonl")
    assert (world.folder / "merged.jsonl").read_bytes() == whole.read_bytes()


def test_parts_that_began_on_two_days_keep_the_first(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    first = world.sample("r1.jsonl", "1/2", backend=Scripted(today=date(2026, 1, 1)))
    second = world.sample("r2.jsonl", "2/2", backend=Scripted(today=date(2026, 1, 1)))
    day = record(first).options["prompt_date"]
    meta_file(second).write_text(meta_file(second).read_text().replace(day, "1999-12-31"))
    merge([first, second], Path("merged.jsonl"))
    assert record(Path("merged.jsonl")).options["prompt_date"] == "1999-12-31"
    said = " ".join(capsys.readouterr().err.split())
    assert f"began on different days and wrote these dates into their prompts: 1999-12-31, {day}" in said


def test_parts_may_have_asked_for_longer_answers_as_one_run_may(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = Sampling(n=2, max_tokens=16)
    first, second = world.sample("r1.jsonl", "1/2"), world.sample("r2.jsonl", "2/2", sampling=longer)
    out = world.folder / "merged.jsonl"
    merge([first, second], out)
    assert record(out).options["max_tokens"] == 16
    assert "the parts were sampled with different `max_tokens`" in " ".join(capsys.readouterr().err.split())
    assert {one.sampling["max_tokens"] for one in read_records(out, Response) if one.sampling} == {8, 16}
    backend = Scripted()
    world.sample("merged.jsonl", backend=backend, sampling=longer)
    assert backend.asked == []
    with pytest.raises(UserError, match="max_tokens: 16 -> 8"):
        world.sample("merged.jsonl")


class Fetched(Scripted):
    """A model on the Hub, which is in the cache of this machine once it is loaded."""

    def __init__(self, cache: Path) -> None:
        super().__init__(model="org/judge")
        self._folder = cache / "models--org--judge"

    def context(self) -> Context:
        snapshot = self._folder / "snapshots" / ("c" * 40)
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / "config.json").write_text("{}")
        (self._folder / "refs").mkdir(exist_ok=True)
        (self._folder / "refs" / "main").write_text("c" * 40)
        return Context(None, lambda text: len(text.split()))

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            yield Reply(request.key, (Completion("supported", "stop", (Pick("supported"),)),))


def test_parts_whose_judge_was_fetched_by_the_first_of_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = world.folder / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    responses, cut = world.sample("responses.jsonl"), maskdpo.make_splitter()
    parts = [world.folder / f"a{i}.jsonl" for i in (1, 2)]
    for i in (1, 2):
        judge = LLMJudge(Fetched(cache), load_protocol("single"))
        assert judge.info.revision == (None if i == 1 else f"org/judge@{'c' * 40}")
        annotate(world.prompts, responses, parts[i - 1], judge, cut, shard=Shard(i, 2))
    told = meta_file(parts[0]).read_text()
    meta_file(parts[0]).write_text(told.replace(f'"org/judge@{"c" * 40}"', "null"))  # as if it had never been fetched
    with pytest.raises(InputError, match=r"revision is .* there\. Parts .* the command of \S*a1.jsonl with those of"):
        merge(parts, world.folder / "a.jsonl")
    meta_file(parts[0]).write_text(told)
    merge(parts, world.folder / "a.jsonl")
    judges = {one.judge.revision for one in read_records(world.folder / "a.jsonl", Annotation) if one.judge}
    assert judges == {record(world.folder / "a.jsonl").options["revision"]} == {f"org/judge@{'c' * 40}"}
    judge = LLMJudge(Fetched(cache), load_protocol("single"))
    stats = annotate(world.prompts, responses, world.folder / "a.jsonl", judge, cut)
    assert stats.run_responses == 0


def test_a_machine_that_has_not_loaded_the_model_knows_no_commit(world: World) -> None:
    halves = world.halves()
    told = meta_file(halves[1]).read_text()
    meta_file(halves[1]).write_text(told.replace('"model_files": "scripted"', '"model_files": "scripted@0a1b"'))
    merge(halves, Path("merged.jsonl"))
    assert record(Path("merged.jsonl")).options["model_files"] == "scripted@0a1b"


def test_in_python_and_in_memory(world: World) -> None:
    prompts = list(read_records(world.prompts, Prompt))
    answers = list(read_records(world.sample("responses.jsonl"), Response))
    halves = [
        list(maskdpo.annotate_responses(prompts, answers, judge="lexical", shard=f"{i}/2")) for i in (1, 2)
    ]  # fmt: skip
    assert {one.prompt_id for one in halves[0]} == {f"q{i}" for i in range(10) if part_of(f"q{i}", 2) == 1}
    assert sorted(one.id for half in halves for one in half) == sorted(one.id for one in answers)
    for i in (1, 2):
        maskdpo.annotate_responses(prompts, answers, judge="lexical", shard=f"{i}/2", out=f"a{i}.jsonl")
    stats = maskdpo.merge_outputs(["a1.jsonl", "a2.jsonl"], out="a.jsonl")
    assert (stats.records, stats.command) == (20, "annotate")
    assert [one.id for one in read_records(Path("a.jsonl"), Annotation)] == [one.id for one in answers]


def test_a_dry_run_forecasts_the_part(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.write_prompts(40)
    config = world.folder / "server.yaml"
    config.write_text("backend: openai\napi-base: http://127.0.0.1:9/v1\nmodel: m\nshard: 1/2\n")
    assert exit_code("sample", world.prompts, "--config", config, "--out", "r.jsonl", "--dry-run") == 0
    count = sum(part_of(f"q{i}", 2) == 1 for i in range(40))
    assert re.search(rf"prompts +│? *{count}\b", capsys.readouterr().out)
    responses = world.sample("responses.jsonl")
    words = ("annotate", world.prompts, responses, "--judge", "llm", "--config", config, "--out", "a.jsonl")
    assert exit_code(*words, "--dry-run") == 0
    assert re.search(rf"answers +│? *{2 * count}\b", capsys.readouterr().out)


def test_a_pipeline_takes_no_shards_and_goes_on_from_merged_files(
    world: World, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.write_prompts(4)
    pipeline = world.folder / "pipeline.yaml"
    sections = "out: run\nprompts: prompts.jsonl\nannotate: {judge: lexical}\n"
    options = f"sample: {{model: {tiny_model}, n: 2, max-tokens: 8"
    pipeline.write_text(f"{sections}{options}, shard: 1/2}}\n")
    assert exit_code("run", pipeline) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "sample.shard: cannot be set here: a stage makes its whole output" in said
    for i in (1, 2):
        words = ("--model", tiny_model, "--n", 2, "--max-tokens", 8, "--shard", f"{i}/2")
        assert exit_code("sample", "prompts.jsonl", *words, "--out", f"parts/r{i}.jsonl") == 0
        how = ("--judge", "lexical", "--shard", f"{i}/2", "--out", f"parts/a{i}.jsonl")
        assert exit_code("annotate", "prompts.jsonl", f"parts/r{i}.jsonl", *how) == 0
    assert exit_code("merge", "parts/r1.jsonl", "parts/r2.jsonl", "--out", "run/responses.jsonl") == 0
    assert exit_code("merge", "parts/a1.jsonl", "parts/a2.jsonl", "--out", "run/annotations.jsonl") == 0
    made = Path("run/responses.jsonl").read_bytes(), Path("run/annotations.jsonl").read_bytes()
    pipeline.write_text(f"{sections}{options}}}\n")
    assert exit_code("run", pipeline) == 0
    assert (Path("run/responses.jsonl").read_bytes(), Path("run/annotations.jsonl").read_bytes()) == made
    assert not list(Path("run").glob("*.bak*"))


ECHO = """
from maskdpo.backends.base import Completion, Reply


class Echo:
    template_options, today = {}, None

    def __init__(self, model):
        self.model = model

    def writes_date(self):
        return False

    def generate(self, requests):
        for request in requests:
            yield Reply(request.key, (Completion(f"The Seine crosses {request.key}. It is dry.", "stop"),))
"""
SBATCH = """#!/usr/bin/env bash
# stands in for Slurm: the tasks of an array run one after the other, the last one first
set -euo pipefail
echo "$*" >> sbatch.log
for word in "$@"; do
    case $word in --array=1-*) last=${word#--array=1-} ;; esac
done
while [[ $1 == --* ]]; do shift; done
if [[ -n ${last:-} ]]; then
    for ((task = last; task; task--)); do SLURM_ARRAY_TASK_ID=$task bash "$@" >&2; done
else
    bash "$@" >&2
fi
echo "17;cluster"
"""


@pytest.mark.slow
def test_the_slurm_script_samples_judges_and_merges(world: World) -> None:
    world.write_prompts(6)
    tools = world.folder / "bin"
    tools.mkdir()
    (tools / "sbatch").write_text(SBATCH)
    (tools / "maskdpo").write_text(f'#!/usr/bin/env bash\nexec "{sys.executable}" -m maskdpo "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    Path("echo.py").write_text(ECHO)
    Path("sample.yaml").write_text("model: echo\nbackend: ./echo.py:Echo\nn: 1\n")
    Path("annotate.yaml").write_text("judge: lexical\n")
    path = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "PARTS": "2"}
    script = ROOT / "examples" / "slurm_array.sh"
    subprocess.run(["bash", script], env=os.environ | path, check=True, capture_output=True)
    assert exit_code("sample", world.prompts, "--config", "sample.yaml", "--out", "one.jsonl") == 0
    assert exit_code("annotate", world.prompts, "one.jsonl", "--judge", "lexical", "--out", "labels.jsonl") == 0
    assert Path("run/responses.jsonl").read_bytes() == Path("one.jsonl").read_bytes()
    assert Path("run/annotations.jsonl").read_bytes() == Path("labels.jsonl").read_bytes()
    submitted = Path("sbatch.log").read_text()
    assert "--dependency=afterok:17 " in submitted
    assert subprocess.run(["bash", script, "other"], capture_output=True, check=False).returncode == 2
