"""Sampling and judging over workers in a Ray of this machine: same results, and no kill that costs one."""

import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import maskdpo
from maskdpo.annotate.judges.llm import LLMJudge
from maskdpo.annotate.protocol import load_protocol
from maskdpo.backends.base import Backend, Request, Sampling
from maskdpo.classifier.spec import presets
from maskdpo.errors import UserError
from maskdpo.io import read_records
from maskdpo.schemas import Annotation, Status
from maskdpo.workers import Workers, cluster, pool

if importlib.util.find_spec("ray") is None:
    pytest.skip("needs ray", allow_module_level=True)

SLOW = f"{Path(__file__).parent / 'slow_judge.py'}:judge"
Dataset = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="module")
def a_ray() -> Iterator[str]:
    """A Ray as ``--workers`` starts one, for all tests; its address."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("RAY_ADDRESS", raising=False)
        environment.setenv("OMP_NUM_THREADS", "1")
        for name in (*cluster.OURS, "RAY_AUTH_TOKEN"):
            environment.setenv(name, "")  # restored at the end
            environment.delenv(name)
        ray = cluster.connect()
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture
def dataset(jsonl: Any) -> Dataset:
    def write(answers: int, *, killer: int | None = None) -> tuple[Path, Path]:
        """Ten answers about each reference."""
        prompts = [{"id": f"p{i}", "prompt": "?", "reference": f"Fact {i}."} for i in range((answers + 9) // 10)]
        responses = [
            {
                "id": f"r{i}",
                "prompt_id": f"p{i // 10}",
                "response": f"Sentence {i}." + (" It will KILL." if i == killer else ""),
                "model": "m",
                "sampling": {},
            }
            for i in range(answers)
        ]
        return jsonl("prompts.jsonl", prompts), jsonl("responses.jsonl", responses)

    return write


def annotate(files: tuple[Path, Path], out: Path, judge: str = SLOW, **settings: Any) -> Any:
    return maskdpo.annotate_responses(*files, judge=judge, out=out, **settings)


# --- the same results ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spread(a_ray: str, tiny_model: str) -> Backend:
    return maskdpo.make_backend(tiny_model, dtype="float32", batch_size=8, workers=2)


@pytest.mark.parametrize("settings", [{"n": 3, "max_tokens": 12}, {"n": 1, "temperature": 0.0, "max_tokens": 8}])
def test_a_model_in_two_workers_writes_what_it_writes_in_this_process(
    spread: Backend, tiny_model: str, tmp_path: Path, jsonl: Any, settings: dict[str, Any]
) -> None:
    prompts = jsonl("prompts.jsonl", ({"id": f"p{i}", "prompt": f"Which river is number {i}?"} for i in range(40)))
    alone = maskdpo.make_backend(tiny_model, dtype="float32", batch_size=8)
    here = maskdpo.sample_responses(prompts, model=alone, out=tmp_path / "here.jsonl", **settings)
    there = maskdpo.sample_responses(prompts, model=spread, out=tmp_path / "there.jsonl", **settings)
    assert (tmp_path / "there.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()
    assert there.completion_tokens == here.completion_tokens
    options = [json.loads((tmp_path / f"{name}.jsonl.meta.json").read_text())["options"] for name in ("here", "there")]
    assert options[0] == options[1]


def test_a_run_goes_on_with_another_number_of_workers(a_ray: str, dataset: Dataset, tmp_path: Path) -> None:
    files, out = dataset(60), tmp_path / "out.jsonl"
    annotate(files, out, limit=20, workers=2)
    annotate(files, out, limit=40)
    stats = annotate(files, out, workers=1)
    annotate(files, tmp_path / "whole.jsonl")
    assert stats.run_responses == 20
    assert stats.run_usage.calls == 20
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_the_llm_judge_asks_its_model_in_workers_turn_by_turn(
    spread: Backend, tiny_model: str, dataset: Dataset, tmp_path: Path
) -> None:
    files, protocol = dataset(30), load_protocol("yes-no")
    alone = maskdpo.make_backend(tiny_model, dtype="float32", batch_size=8)
    for name, backend in (("here", alone), ("there", spread)):
        maskdpo.annotate_responses(*files, judge=LLMJudge(backend, protocol), out=tmp_path / f"{name}.jsonl")
    here, there = (list(read_records(tmp_path / f"{name}.jsonl", Annotation)) for name in ("here", "there"))
    assert [one.judge for one in here] == [one.judge for one in there]
    for one, other in zip(here, there, strict=True):
        assert [s.label for s in one.sentences] == [s.label for s in other.sentences]
        confidence = [s.confidence for s in one.sentences]
        assert [s.confidence for s in other.sentences] == pytest.approx(confidence, abs=1e-5)


def test_the_classifier_judge_runs_in_workers_as_a_whole(
    a_ray: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "classifier")
    import tiny_classifiers

    preset, spec = next((name, spec) for name, spec in presets().items() if "roberta" in name.lower())
    names = {i: label.name for i, label in enumerate(spec.labels) if label.name}
    model = tiny_classifiers.save(tmp_path / "model", "roberta", len(spec.labels), names or None)
    given = {"model": str(model), "judge_options": {"spec": preset}, "device": "cpu", "dtype": "float32"}
    files = dataset(40)
    alone = annotate(files, tmp_path / "here.jsonl", "classifier", **given)
    spread = annotate(files, tmp_path / "there.jsonl", "classifier", **given, workers=1)
    here, there = (list(read_records(tmp_path / f"{name}.jsonl", Annotation)) for name in ("here", "there"))
    assert [one.judge for one in here] == [one.judge for one in there]
    for one, other in zip(here, there, strict=True):
        assert [s.label for s in one.sentences] == [s.label for s in other.sentences]
        assert [s.scores for s in one.sentences] == [pytest.approx(s.scores, abs=1e-5) for s in other.sentences]
    assert alone.run_usage.calls == spread.run_usage.calls == 40


def test_answers_about_one_reference_go_to_one_worker(a_ray: str, dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "how.json").write_text('{"seconds": 0.005}')
    options = {"tell": True, "file": str(tmp_path / "how.json")}
    annotate(dataset(600), tmp_path / "out.jsonl", judge_options=options, workers=2)
    by_reference: dict[str, Counter[str]] = {}
    for record in read_records(tmp_path / "out.jsonl", Annotation):
        by_reference.setdefault(record.prompt_id, Counter())[record.sentences[0].evidence or ""] += 1
    alone = [next(iter(workers)) for workers in by_reference.values() if len(workers) == 1]
    assert len(set(alone)) == 2
    assert len(alone) >= 0.8 * len(by_reference)  # the others moved to a worker that had nothing to do


def test_the_first_worker_that_is_ready_leaves_something_for_the_others(
    a_ray: str, dataset: Dataset, tmp_path: Path
) -> None:
    """The judge reads more than there is before it judges anything, and one worker loads two seconds longer."""
    told = {"window": 4096, "late": str(tmp_path / "first"), "seconds": 0.01}
    (tmp_path / "how.json").write_text(json.dumps(told))
    judge = maskdpo.make_judge(SLOW, judge_options={"file": str(tmp_path / "how.json")}, workers=2)
    assert annotate(dataset(600), tmp_path / "out.jsonl", judge).run_responses == 600
    answers = [int(re.findall(r"\d+", note)[1]) for note in judge.notes()]
    assert sum(answers) == 600
    assert min(answers) > 100


def test_two_runs_at_the_same_time_are_refused_and_the_first_one_goes_on(spread: Backend) -> None:
    first = spread.generate(Request(i, f"{i}", sampling=Sampling(max_tokens=2)) for i in range(30))
    keys = [next(first).key]
    with pytest.raises(UserError, match="still working at the requests of another run"):
        next(spread.generate([Request("other", "?")]))
    keys += [reply.key for reply in first]
    assert sorted(keys) == list(range(30))
    assert len(list(spread.generate([Request("other", "?", sampling=Sampling(max_tokens=2))]))) == 1


def test_a_backend_of_ones_own_without_a_context_works_as_in_this_process(
    a_ray: str, tmp_path: Path, jsonl: Any
) -> None:
    prompts = jsonl("prompts.jsonl", ({"id": f"p{i}", "prompt": f"{i}"} for i in range(9)))
    echo = f"{Path(__file__).parent / 'slow_judge.py'}:Echo"
    for name, workers in (("here", None), ("there", 1)):
        maskdpo.sample_responses(
            prompts, model="m", backend=echo, n=1, raw=True, workers=workers, out=tmp_path / f"{name}.jsonl"
        )
    assert (tmp_path / "there.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()


# --- kills -----------------------------------------------------------------------------------------


def test_an_answer_that_kills_every_worker_fails_alone(
    a_ray: str, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotate(dataset(60, killer=33), tmp_path / "out.jsonl", workers=2)
    records = {record.id: record for record in read_records(tmp_path / "out.jsonl", Annotation)}
    failed = {name for name, record in records.items() if any(s.label is None for s in record.sentences)}
    assert len(records) == 60
    assert failed == {"r33"}
    assert {s.status for s in records["r33"].sentences} == {Status.API_ERROR}
    assert "3 workers have died while they had it" in (records["r33"].sentences[0].reason or "")
    said = capsys.readouterr()
    assert said.err.count("has died") == 3
    assert "are asked again" in said.err
    assert "Ray is started or joined, then 2 workers load their models, before the first result" in said.err
    logs = {Path(found) for found in re.findall(r"More is in Ray's logs on \S+: (\S+)", said.err)}
    assert [(one.is_dir(), one.name, one.parent.name != "session_latest") for one in logs] == [(True, "logs", True)]
    assert "raylet" not in said.out


def driver(
    files: tuple[Path, Path], out: Path, environment: dict[str, str], how: dict[str, Any]
) -> subprocess.Popen[bytes]:
    """A run of ``annotate`` with two workers, as a process of its own.

    Args:
        how: what the judge reads from its file.
    """
    out.with_suffix(".json").write_text(json.dumps(how))
    command = [sys.executable, "-m", "maskdpo", "annotate", *map(str, files), "--judge", SLOW, "--out", str(out)]
    command += ["--judge-option", f"file={out.with_suffix('.json')}"]
    log = out.with_suffix(".log").open("ab")
    return subprocess.Popen([*command, "--workers", "2"], env={**os.environ, **environment}, stdout=log, stderr=log)


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def alive_of(pids: Path) -> list[int]:
    """The processes that have noted themselves in a folder."""
    return sorted(int(file.name) for file in pids.iterdir() if Path(f"/proc/{file.name}").exists())


def wait_for(condition: Callable[[], bool], process: Any = None, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        assert process is None or process.poll() is None, "it has ended"
        time.sleep(0.02)


@pytest.mark.slow
def test_kills_at_random_moments_of_workers_and_of_the_run_itself_cost_nothing(
    a_ray: str, dataset: Dataset, tmp_path: Path
) -> None:
    files, out, rng, kills = dataset(4000), tmp_path / "out.jsonl", random.Random(16), 0
    for life in range(2):
        pids = tmp_path / f"pids-{life}"
        pids.mkdir()
        run = driver(files, out, {"RAY_ADDRESS": a_ray}, {"seconds": 0.04, "pids": str(pids)})
        for _ in range(2):
            before, started = lines(out), set(pids.iterdir())
            wait_for(lambda: lines(out) > before and len(alive_of(pids)) >= 2, run)  # noqa: B023
            for pid in rng.sample(alive_of(pids), 2):
                time.sleep(rng.uniform(0, 0.6))
                os.kill(pid, signal.SIGKILL)
                kills += 1
            wait_for(lambda: len(set(pids.iterdir()) - started) >= 2, run)  # noqa: B023
        time.sleep(rng.uniform(0, 1.0))
        run.kill()
        run.wait()
        kills += 1
    assert lines(out) < 4000
    assert driver(files, out, {"RAY_ADDRESS": a_ray}, {}).wait() == 0, out.with_suffix(".log").read_text()
    annotate(files, tmp_path / "whole.jsonl")
    assert kills == 10
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def processes_with(mark: str) -> set[int]:
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_run_that_ends_leaves_no_process_behind(dataset: Dataset, tmp_path: Path, end: int, code: int) -> None:
    """With a Ray of its own, whose token is told to nobody."""
    files, out, mark = dataset(2000), tmp_path / "out.jsonl", uuid.uuid4().hex
    run = driver(files, out, {"RAY_ADDRESS": "", "MARK": mark}, {"seconds": 0.05})
    wait_for(lambda: lines(out) > 0, run, seconds=180)
    started = processes_with(mark)
    assert len(started) > 4
    told = [(Path("/proc") / str(pid) / "environ").read_bytes() for pid in started - {run.pid}]
    [token] = {found[1] for environment in told if (found := re.search(rb"RAY_AUTH_TOKEN=(\w{64})\0", environment))}
    assert not any(token in (Path("/proc") / str(pid) / "cmdline").read_bytes() for pid in started)
    run.send_signal(end)
    assert run.wait(90) == code
    wait_for(lambda: not processes_with(mark), seconds=180)
    assert token not in out.with_suffix(".log").read_bytes()
    sessions = Path(tempfile.gettempdir(), "ray").glob(f"session_*_{run.pid}")
    logs = [file for session in sessions for file in session.rglob("*") if file.is_file()]
    assert logs
    assert not any(token in file.read_bytes() for file in logs)


# --- what cannot work ------------------------------------------------------------------------------


def test_a_model_that_cannot_be_loaded_is_the_error_of_this_process_every_time(a_ray: str) -> None:
    unloadable = f"{Path(__file__).parent / 'slow_judge.py'}:unloadable"
    backend = maskdpo.make_backend("m", backend=unloadable, workers=1)
    for _ in range(2):
        with pytest.raises(UserError, match=r"^m has no weights$"):
            backend.context()


def test_sys_exit_in_a_worker_ends_the_run_and_what_was_judged_is_kept(
    a_ray: str, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "how.json").write_text('{"exit": 15}')
    options = {"file": str(tmp_path / "how.json")}
    with pytest.raises(UserError, match=r"ended its process by sys\.exit\(3\)"):
        annotate(dataset(40), tmp_path / "out.jsonl", judge_options=options, workers=1)
    assert lines(tmp_path / "out.jsonl") == 15
    assert "has died" not in capsys.readouterr().err


def test_a_package_that_a_worker_lacks_is_one_line(a_ray: str, dataset: Dataset, tmp_path: Path) -> None:
    judge = f"{Path(__file__).parent / 'slow_judge.py'}:without_package"
    with pytest.raises(UserError, match=r"^this needs the package torch, .* pip install 'maskdpo\[train\]'$"):
        annotate(dataset(10), tmp_path / "out.jsonl", judge=judge, workers=1)


def test_a_worker_that_dies_while_it_loads_ends_the_run(
    a_ray: str, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = f"{Path(__file__).parent / 'slow_judge.py'}:dying"
    with pytest.raises(UserError, match=r"worker 1 .* has died 3 times in a row while it loaded its model"):
        annotate(dataset(10), tmp_path / "out.jsonl", judge=judge, workers=1)
    assert capsys.readouterr().err.count("It is started again.") == 2


def test_a_cluster_without_the_gpus_is_named_and_not_waited_for_without_end(
    a_ray: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "_started_here", set())  # a cluster of others, to which machines may come
    monkeypatch.setattr(pool, "PATIENCE_S", 0.5)
    monkeypatch.setattr(pool, "LONGEST_WAIT_S", 1.5)
    with pytest.raises(UserError, match=r"no place for worker 1, worker 2 yet: .*2 GPU, and .* 0 GPU"):
        annotate(dataset(10), tmp_path / "out.jsonl", workers=2, gpus_per_worker=2)
    assert "They start as soon as there is a place" in capsys.readouterr().err


def test_more_gpus_than_this_machine_has_are_refused_at_once(a_ray: str) -> None:
    work = Workers(dict, 2, gpus=500, items="requests")
    advice = "Ask for fewer" if cluster.connect().cluster_resources().get("GPU") else "Leave `gpus_per_worker` out"
    message = f"2 `workers` with 500 GPUs each need 1000 GPUs, and this machine has [0-9]+. {advice}"
    with pytest.raises(UserError, match=message):
        list(work.run(["one"], str))


def test_a_ray_that_is_there_is_used_as_it_is(a_ray: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*cluster.OURS, "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    ray = cluster.connect()
    assert dict(os.environ) == before
    assert cluster.is_of_this_machine(ray)
    monkeypatch.setattr(cluster, "_started_here", set())
    assert cluster.needs(ray, 2, 500, 1) == {"num_cpus": 1, "num_gpus": 500}


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"`workers` needs the package ray. .* pip install 'maskdpo\[ray\]'"):
        cluster.connect()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "openai", "workers": 2}, "`workers` hold a model, .* several servers of the model as `api_base`"),
        ({"gpus_per_worker": 1}, "`gpus_per_worker` goes with `workers`"),
        ({"workers": 2, "gpus_per_worker": 1.5}, "a part of one GPU or a whole number, not 1.5"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        maskdpo.make_backend("m", **settings)


def test_a_judge_without_a_model_has_no_workers() -> None:
    with pytest.raises(UserError, match="`workers` goes with `judge` llm or classifier, not with lexical"):
        maskdpo.make_judge("lexical", workers=2)
