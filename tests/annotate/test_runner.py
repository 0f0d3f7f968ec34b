"""The annotate runner: resumable, in order, labels of one judge only."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from maskdpo.annotate.judge import Task, Verdict
from maskdpo.annotate.judges import get_judge
from maskdpo.annotate.runner import annotate
from maskdpo.annotate.splitters import get_splitter
from maskdpo.errors import InputError, UserError
from maskdpo.io import read_records
from maskdpo.runs import RunMeta, meta_file
from maskdpo.schemas import Annotation, JudgeInfo, Kind, Label, Status

SPLITTER = get_splitter("markdown")


def verdict_of(sentence: str) -> Verdict:
    """What the scripted judge says: a verdict or a failure that the sentence itself names."""
    for status in (Status.API_ERROR, Status.PARSE_ERROR, Status.REFUSED, Status.TRUNCATED):
        if status.value in sentence:
            return Verdict(None, status, reason="as asked for")
    label = Label.CONTRADICTORY if "wrong" in sentence else Label.NO_HALLUCINATION
    return Verdict(label, confidence=0.75, evidence="e", reason="r")


class Scripted:
    """Judges by the words of the sentence; gives tasks back in windows, last one first; records what it is asked."""

    def __init__(self, *, name: str = "scripted", model: str | None = None, window: int = 3, stop_after: int = 999):
        self.info = JudgeInfo(name=name, model=model, version="1")
        self.asked: list[tuple[str, str]] = []
        self._window, self._left = window, stop_after

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        window: list[Task] = []
        for task in tasks:
            self.asked += [(task.response.id, task.sentence(i)) for i in range(len(task.spans))]
            window.append(task)
            if len(window) == self._window:
                yield from self._back(window)
                window = []
        yield from self._back(window)

    def _back(self, window: list[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        for task in reversed(window):
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt
            yield task, [verdict_of(task.sentence(i)) for i in range(len(task.spans))]


def response_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{i}",
            "prompt_id": "q",
            "response": f"This is right {i}. This is wrong {i}.",
            "model": "m",
            "meta": {"n": i},
        }
        for i in range(count)
    ]


@pytest.fixture
def prompts(jsonl: Any) -> Path:
    return jsonl("prompts.jsonl", [{"id": "q", "prompt": "Where?", "reference": "Here."}])


@pytest.fixture
def responses(jsonl: Any) -> Path:
    return jsonl("responses.jsonl", response_rows(10))


Run = Callable[..., Any]


@pytest.fixture
def run(prompts: Path, responses: Path, tmp_path: Path) -> Run:
    def annotate_to(name: str, judge: Any, **options: Any) -> tuple[Path, Any]:
        out = tmp_path / name
        return out, annotate(prompts, responses, out, judge, SPLITTER, **options)

    return annotate_to


def records(out: Path) -> list[Annotation]:
    return list(read_records(out, Annotation))


def test_responses_come_out_labelled_in_their_order_with_all_they_had(run: Run) -> None:
    judge = Scripted()
    out, stats = run("a.jsonl", judge)
    found = records(out)
    assert [record.id for record in found] == [f"r{i}" for i in range(10)]
    assert len(judge.asked) == 20
    record = found[3]
    assert (record.response, record.model, record.meta) == ("This is right 3. This is wrong 3.", "m", {"n": 3})
    assert record.judge == JudgeInfo(name="scripted", version="1", splitter="markdown")
    assert [(s.start, s.end, s.label, s.confidence, s.evidence, s.reason) for s in record.sentences] == [
        (0, 16, Label.NO_HALLUCINATION, 0.75, "e", "r"),
        (17, 33, Label.CONTRADICTORY, 0.75, "e", "r"),
    ]
    assert (stats.responses, stats.sentences, stats.failed) == (10, 20, 0)
    assert stats.labels == {Label.NO_HALLUCINATION: 10, Label.CONTRADICTORY: 10}
    assert RunMeta.model_validate_json(meta_file(out).read_bytes()).status == "complete"


def test_a_complete_run_asks_nothing(run: Run) -> None:
    out, _ = run("a.jsonl", Scripted())
    before, judge = out.read_bytes(), Scripted()
    _, stats = run("a.jsonl", judge)
    assert (judge.asked, stats.already_there, out.read_bytes()) == ([], 10, before)


@pytest.mark.parametrize("after", [1, 2, 5, 9])
def test_an_interrupted_run_keeps_what_came_back_and_goes_on_from_there(run: Run, after: int) -> None:
    whole, _ = run("whole.jsonl", Scripted())
    with pytest.raises(KeyboardInterrupt):
        run("a.jsonl", Scripted(stop_after=after))
    out = whole.with_name("a.jsonl")
    had = {record.id for record in records(out)}
    assert len(had) == after
    judge = Scripted()
    run("a.jsonl", judge)
    assert {identity for identity, _ in judge.asked} == {f"r{i}" for i in range(10)} - had
    assert out.read_bytes() == whole.read_bytes()


def test_a_torn_last_line_is_judged_again(run: Run) -> None:
    out, _ = run("a.jsonl", Scripted())
    whole = out.read_bytes()
    out.write_bytes(whole[:-40])
    judge = Scripted()
    run("a.jsonl", judge)
    assert {identity for identity, _ in judge.asked} == {"r9"}
    assert out.read_bytes() == whole


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.OK])
def test_a_failure_becomes_a_status_and_never_a_label(
    jsonl: Any, prompts: Path, tmp_path: Path, status: Status
) -> None:
    text = f"This is right. Here comes {status.value}."
    answers = jsonl("r.jsonl", [{"id": "r", "prompt_id": "q", "response": text}])
    stats = annotate(prompts, answers, tmp_path / "a.jsonl", Scripted(), SPLITTER)
    good, bad = records(tmp_path / "a.jsonl")[0].sentences
    assert (good.label, good.status) == (Label.NO_HALLUCINATION, Status.OK)
    assert (bad.label, bad.status, bad.reason) == (None, status, "as asked for")
    assert (stats.failed, stats.statuses[status], stats.labels.total()) == (1, 1, 1)


def test_headings_and_code_need_no_judge_and_stay_in_place(jsonl: Any, prompts: Path, tmp_path: Path) -> None:
    text = "# Title\n\nThis is right.\n\n```\ncode\n```\n\nThis is wrong."
    answers = jsonl("r.jsonl", [{"id": "r", "prompt_id": "q", "response": text}])
    judge = Scripted()
    annotate(prompts, answers, tmp_path / "a.jsonl", judge, SPLITTER)
    assert [sentence for _, sentence in judge.asked] == ["This is right.", "This is wrong."]
    found = records(tmp_path / "a.jsonl")[0].sentences
    assert [(s.kind, s.label) for s in found] == [
        (Kind.HEADING, Label.NO_FACT),
        (Kind.PROSE, Label.NO_HALLUCINATION),
        (Kind.CODE, Label.NO_FACT),
        (Kind.PROSE, Label.CONTRADICTORY),
    ]


def test_an_empty_answer_is_annotated_without_sentences(jsonl: Any, prompts: Path, tmp_path: Path) -> None:
    answers = jsonl("r.jsonl", [{"id": "r", "prompt_id": "q", "response": text} for text in (" \n",)])
    assert annotate(prompts, answers, tmp_path / "a.jsonl", Scripted(), SPLITTER).sentences == 0
    assert records(tmp_path / "a.jsonl")[0].sentences == []


@pytest.mark.parametrize(
    ("judge", "splitter", "what"),
    [
        (Scripted(name="other"), "markdown", "name: 'scripted' -> 'other'"),
        (Scripted(model="big"), "markdown", "model: None -> 'big'"),
        (Scripted(), "nltk", "splitter: 'markdown' -> 'nltk"),
    ],
)
def test_another_judge_or_splitter_is_refused_by_name(
    prompts: Path, responses: Path, tmp_path: Path, judge: Scripted, splitter: str, what: str
) -> None:
    out = tmp_path / "a.jsonl"
    annotate(prompts, responses, out, Scripted(), SPLITTER)
    before = out.read_bytes(), meta_file(out).read_bytes()
    if splitter == "nltk":
        pytest.importorskip("nltk")
    with pytest.raises(UserError) as error:
        annotate(prompts, responses, out, judge, get_splitter(splitter, ["One. Two."]))
    assert what in str(error.value)
    assert "--restart" in str(error.value)
    assert judge.asked == []
    assert (out.read_bytes(), meta_file(out).read_bytes()) == before


def test_restart_sets_the_earlier_labels_aside(run: Run) -> None:
    out, _ = run("a.jsonl", Scripted())
    before, judge = out.read_bytes(), Scripted(name="other")
    run("a.jsonl", judge, restart=True)
    assert out.with_name("a.jsonl.bak").read_bytes() == before
    assert len(judge.asked) == 20
    assert {record.judge.name for record in records(out) if record.judge} == {"other"}


def test_an_answer_whose_text_changed_since_is_an_error(jsonl: Any, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    annotate(prompts, jsonl("r.jsonl", response_rows(2)), out, Scripted(), SPLITTER)
    changed = [row | {"response": "Other text."} for row in response_rows(2)]
    with pytest.raises(InputError, match=r"a\.jsonl: 'r0' is annotated here with another text"):
        annotate(prompts, jsonl("r.jsonl", changed), out, Scripted(), SPLITTER)


def test_a_judge_that_cannot_work_leaves_no_file(prompts: Path, responses: Path, tmp_path: Path) -> None:
    class Broken(Scripted):
        def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
            next(iter(tasks))
            raise UserError("no server")
            yield

    with pytest.raises(UserError, match="no server"):
        annotate(prompts, responses, tmp_path / "a.jsonl", Broken(), SPLITTER)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["prompts.jsonl", "responses.jsonl"]


# --- judges of one's own ---------------------------------------------------------------------------

OWN = """
from maskdpo.annotate.judge import Verdict
from maskdpo.schemas import JudgeInfo, Label
class Mine:
    info = JudgeInfo(name="mine", version="7")
    def judge(self, tasks):
        for task in tasks:
            yield task, [Verdict(Label.UNVERIFIABLE)] * len(task.spans)
def make():
    return Mine()
ready = Mine()
not_a_judge = dict
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_judge_for_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_judge_for_test"


def no_backend() -> Any:
    raise AssertionError("this judge needs no backend")


@pytest.mark.parametrize("attribute", ["make", "ready"])
def test_a_judge_of_ones_own(run: Run, own: str, attribute: str) -> None:
    out, stats = run("a.jsonl", get_judge(f"{own}:{attribute}", make_backend=no_backend, protocol="single"))
    assert stats.labels == {Label.UNVERIFIABLE: 20}
    assert {record.judge.name for record in records(out) if record.judge} == {"mine"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oracle", "unknown judge 'oracle'; known: lexical, llm, or package.module:factory"),
        ("no_such_module:make", "--judge no_such_module:make: cannot be imported"),
        ("own_judge_for_test:nothing", "cannot be imported"),
        ("own_judge_for_test:not_a_judge", "dict is no judge: it needs 'info' and 'judge'"),
        (":make", "cannot be imported"),
    ],
)
def test_names_that_are_no_judge(own: str, name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_judge(name, make_backend=no_backend, protocol="single")
    assert message in str(error.value)


# --- killed ----------------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from maskdpo.annotate import runner
from tests.annotate.test_runner import SPLITTER, Scripted
runner.FLUSH_RECORDS = 3
class Slow(Scripted):
    def _back(self, window):
        for pair in super()._back(window):
            time.sleep(0.003)
            yield pair
prompts, responses, out = map(Path, sys.argv[1:])
runner.annotate(prompts, responses, out, Slow(window=5), SPLITTER)
"""


def test_killed_at_any_moment_the_same_command_ends_in_the_same_file(jsonl: Any, prompts: Path, tmp_path: Path) -> None:
    responses = jsonl("r.jsonl", response_rows(60))
    whole, out = tmp_path / "whole.jsonl", tmp_path / "a.jsonl"
    annotate(prompts, responses, whole, Scripted(window=5), SPLITTER)
    rng, killed = random.Random(2), 0
    for _ in range(20):
        arguments = [sys.executable, "-c", CHILD, str(prompts), str(responses), str(out)]
        child = subprocess.Popen(arguments, cwd=Path(__file__).parents[2])
        while not out.exists() and child.poll() is None:
            time.sleep(0.002)
        if killed < 4:
            time.sleep(rng.uniform(0, 0.1))
            child.send_signal(signal.SIGKILL)
        if child.wait() == 0:
            break
        killed += 1
    assert killed == 4
    assert out.read_bytes() == whole.read_bytes()
