"""``annotate``: resumable, in order, labels of one judge only."""

import contextlib
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import maskdpo
from maskdpo import console, identity, prompt_date
from maskdpo.annotate import labelling
from maskdpo.annotate.judge import Task, Usage, Verdict
from maskdpo.annotate.judges import get_judge
from maskdpo.annotate.labelling import annotate
from maskdpo.annotate.relabel import relabel
from maskdpo.annotate.stats import SentenceCounts
from maskdpo.dataset.filters import DroppedAnswer
from maskdpo.errors import CannotContinue, InputError, UserError
from maskdpo.io import read_records, write_records
from maskdpo.lineage import trace
from maskdpo.run_record import RunMeta, meta_file
from maskdpo.schemas import FAILED, Annotation, Counts, JudgeInfo, Kind, Label, Prompt, Response, Sentence, Span, Status
from maskdpo.text.splitters import get_splitter
from maskdpo.text.splitters.nltk_splitter import nltk_splitter
from maskdpo.verdicts.decision import Calibration, Parameters, Rule

SPLITTER = get_splitter("markdown")


def verdict_of(sentence: str, *, healed: bool = False) -> Verdict:
    """What the scripted judge says: a verdict or a failure that the sentence itself names."""
    for status in (Status.API_ERROR, Status.PARSE_ERROR, Status.REFUSED, Status.TRUNCATED):
        if status.value in sentence and not healed:
            return Verdict(None, status, reason="as asked for")
    label = Label.CONTRADICTORY if "wrong" in sentence else Label.NO_HALLUCINATION
    return Verdict(label, confidence=0.75, evidence="e", reason="r")


class Scripted:
    """Judges by the words of the sentence; gives tasks back in windows, last one first; records what it is asked."""

    def __init__(
        self,
        *,
        name: str = "scripted",
        model: str | None = None,
        window: int = 3,
        stop_after: int = 999,
        healed: bool = False,
        error: type[BaseException] = KeyboardInterrupt,
    ):
        self.info = JudgeInfo(name=name, model=model, version="1")
        self.asked: list[tuple[str, str]] = []
        self.given: dict[str, list[str]] = {}
        self._window, self._left, self._healed, self._error = window, stop_after, healed, error

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        window: list[Task] = []
        for task in tasks:
            self.asked += [(task.response.id, task.sentence(i)) for i in range(len(task.spans))]
            self.given[task.response.id] = [task.response.response[s.start : s.end] for s in task.given]
            window.append(task)
            if len(window) == self._window:
                yield from self._back(window)
                window = []
        yield from self._back(window)

    def _back(self, window: list[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        for task in reversed(window):
            self._left -= 1
            if self._left < 0:
                raise self._error("CUDA out of memory")
            yield task, [verdict_of(task.sentence(i), healed=self._healed) for i in range(len(task.spans))]


class Speaks:
    """What a judge may speak through: its chat template writes the date."""

    today: date | None = None

    def writes_date(self) -> bool:
        return True


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


def failing_rows(count: int) -> list[dict[str, Any]]:
    """Of every third answer the third of four sentences fails."""
    failure = {0: " Here comes api_error. This is right."}
    return [row | {"response": row["response"] + failure.get(i % 3, "")} for i, row in enumerate(response_rows(count))]


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


TORN = [
    {"id": "cut", "prompt_id": "q", "response": "This is right. This is wro", "finish_reason": "length"},
    {"id": "lucky", "prompt_id": "q", "response": "This is right.", "finish_reason": "length"},
    {"id": "whole", "prompt_id": "q", "response": "This is right. This is wro", "finish_reason": "stop"},
]


class Lines:
    """A splitter of one's own: one span a line."""

    name = "lines"

    def split(self, text: str, language: str) -> list[Span]:
        return [Span(0, len(text))]


@pytest.mark.parametrize("name", ["markdown", "spacy", "nltk", "lines"])
def test_the_torn_end_of_an_answer_is_neither_judged_nor_labelled(
    prompts: Path, jsonl: Any, tmp_path: Path, name: str
) -> None:
    judge, splitter = Scripted(), Lines() if name == "lines" else get_splitter(name)
    out = tmp_path / "a.jsonl"
    stats = annotate(prompts, jsonl("torn.jsonl", TORN), out, judge, splitter)
    cut, lucky, whole = records(out)
    begin = 0 if name == "lines" else 15
    assert cut.sentences[-1] == Sentence(start=begin, end=26, kind=Kind.FRAGMENT, status=Status.FRAGMENT)
    assert [s.kind for s in [*lucky.sentences, *whole.sentences]] == [Kind.PROSE] * (2 if name == "lines" else 3)
    assert judge.given["cut"] == [cut.response[begin:]]
    assert ("cut", cut.response[begin:]) not in judge.asked
    assert cut.counts == Counts.of(s.label for s in cut.sentences[:-1])
    assert (stats.file.failed, stats.file.statuses[Status.FRAGMENT]) == (0, 1)
    asked = list(judge.asked)
    annotate(prompts, jsonl("torn.jsonl", TORN), out, judge, splitter, retry_failed=True)
    assert judge.asked == asked


def test_an_output_whose_fragments_were_judged_is_kept_but_not_continued(
    prompts: Path, jsonl: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, responses = tmp_path / "a.jsonl", jsonl("torn.jsonl", TORN)
    as_before = jsonl("before.jsonl", [row | {"finish_reason": "stop"} for row in TORN])
    annotate(prompts, as_before, out, Scripted(), SPLITTER)
    write_records(out, [r.model_copy(update={"finish_reason": "length"}) for r in records(out)[:2]])
    meta = json.loads(meta_file(out).read_text())
    del meta["options"]["fragments"]  # an earlier version knew of none
    meta_file(out).write_text(json.dumps(meta))
    before = out.read_bytes()
    with pytest.raises(CannotContinue, match="in 1 answer the torn sentence at a cut-off was judged, by"):
        annotate(prompts, responses, out, Scripted(), SPLITTER)
    assert out.read_bytes() == before
    capsys.readouterr()
    judge = Scripted()
    annotate(prompts, jsonl("torn.jsonl", TORN[:2]), out, judge, SPLITTER)
    assert (judge.asked, out.read_bytes()) == ([], before)
    assert "`maskdpo relabel` takes these labels away" in " ".join(capsys.readouterr().err.split())


def test_an_output_of_another_rule_of_fragments_is_not_continued(prompts: Path, jsonl: Any, tmp_path: Path) -> None:
    out, responses = tmp_path / "a.jsonl", jsonl("torn.jsonl", TORN)
    annotate(prompts, responses, out, Scripted(), SPLITTER)
    meta = json.loads(meta_file(out).read_text())
    meta["options"]["fragments"] = "0"
    meta_file(out).write_text(json.dumps(meta))
    with pytest.raises(UserError, match="fragments: '0' -> '1'"):
        annotate(prompts, responses, out, Scripted(), SPLITTER)


def test_relabel_takes_the_label_of_a_fragment_away(prompts: Path, jsonl: Any, tmp_path: Path) -> None:
    judged, annotated, out = tmp_path / "judged.jsonl", tmp_path / "annotated.jsonl", tmp_path / "relabelled.jsonl"
    annotate(prompts, jsonl("r.jsonl", [row | {"finish_reason": "stop"} for row in TORN]), judged, Scripted(), SPLITTER)
    ends = {row["id"]: row["finish_reason"] for row in TORN}
    write_records(judged, [r.model_copy(update={"finish_reason": ends[r.id]}) for r in records(judged)])
    annotate(prompts, jsonl("r.jsonl", TORN), annotated, Scripted(), SPLITTER)
    assert relabel(judged, out, Rule()).now_fragments == 1
    assert records(out) == records(annotated)


def test_responses_come_out_labelled_in_their_order_with_all_they_had(run: Run) -> None:
    judge = Scripted()
    out, stats = run("a.jsonl", judge)
    found = records(out)
    assert [record.id for record in found] == [f"r{i}" for i in range(10)]
    assert len(judge.asked) == 20
    record = found[3]
    assert (record.response, record.model, record.meta) == ("This is right 3. This is wrong 3.", "m", {"n": 3})
    assert record.judge == JudgeInfo(name="scripted", version="1", splitter="markdown-2")
    assert [(s.start, s.end, s.label, s.confidence, s.evidence, s.reason) for s in record.sentences] == [
        (0, 16, Label.NO_HALLUCINATION, 0.75, "e", "r"),
        (17, 33, Label.CONTRADICTORY, 0.75, "e", "r"),
    ]
    assert (stats.responses, stats.file.sentences, stats.file.failed) == (10, 20, 0)
    assert stats.file.labels == {Label.NO_HALLUCINATION: 10, Label.CONTRADICTORY: 10}
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


def test_two_runs_on_one_output(run: Run, tmp_path: Path) -> None:
    """The second one is turned away whatever it would do, and the first is none the worse for it."""

    class Meanwhile(Scripted):
        def _back(self, window: list[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
            for options in ({}, {"restart": True}, {"retry_failed": True}):
                with pytest.raises(UserError, match=r"a\.jsonl: another maskdpo run is writing to it"):
                    run("a.jsonl", Scripted(), **options)
            yield from super()._back(window)

    whole, _ = run("whole.jsonl", Scripted())
    out, _ = run("a.jsonl", Meanwhile())
    assert out.read_bytes() == whole.read_bytes()
    assert not [file for file in tmp_path.iterdir() if "lock" in file.name]


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, UserError, SystemExit, KeyboardInterrupt])
def test_whatever_stops_the_judge_what_came_back_is_written(run: Run, error: type[BaseException]) -> None:
    with pytest.raises(error, match="CUDA out of memory"):
        run("a.jsonl", Scripted(stop_after=7, error=error))
    judge = Scripted()
    out, stats = run("a.jsonl", judge)
    assert (stats.already_there, len(judge.asked)) == (7, 6)
    assert [record.id for record in records(out)] == [f"r{i}" for i in range(10)]


def test_a_torn_last_line_is_judged_again(run: Run) -> None:
    out, _ = run("a.jsonl", Scripted())
    whole = out.read_bytes()
    out.write_bytes(whole[:-40])
    judge = Scripted()
    run("a.jsonl", judge)
    assert {identity for identity, _ in judge.asked} == {"r9"}
    assert out.read_bytes() == whole


@pytest.mark.parametrize("status", sorted(FAILED))
def test_a_failure_becomes_a_status_and_never_a_label(
    jsonl: Any, prompts: Path, tmp_path: Path, status: Status
) -> None:
    text = f"This is right. Here comes {status.value}."
    answers = jsonl("r.jsonl", [{"id": "r", "prompt_id": "q", "response": text}])
    stats = annotate(prompts, answers, tmp_path / "a.jsonl", Scripted(), SPLITTER)
    good, bad = records(tmp_path / "a.jsonl")[0].sentences
    assert (good.label, good.status) == (Label.NO_HALLUCINATION, Status.OK)
    assert (bad.label, bad.status, bad.reason) == (None, status, "as asked for")
    assert (stats.file.failed, stats.file.statuses[status], stats.file.labels.total()) == (1, 1, 1)


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
    assert annotate(prompts, answers, tmp_path / "a.jsonl", Scripted(), SPLITTER).file.sentences == 0
    assert records(tmp_path / "a.jsonl")[0].sentences == []


@pytest.mark.parametrize(
    ("judge", "splitter", "what"),
    [
        (Scripted(name="other"), "markdown", "name: 'scripted' -> 'other'"),
        (Scripted(model="big"), "markdown", "model: None -> 'big'"),
        (Scripted(), "nltk", "splitter: 'markdown-2' -> 'nltk-2"),
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
    with pytest.raises(CannotContinue) as error:
        annotate(prompts, responses, out, judge, get_splitter(splitter, lambda: ["One. Two."]))
    assert what in str(error.value)
    assert "`restart`" in str(error.value)
    assert judge.asked == []
    assert (out.read_bytes(), meta_file(out).read_bytes()) == before


def test_restart_sets_the_earlier_labels_aside(run: Run) -> None:
    out, _ = run("a.jsonl", Scripted())
    before, judge = out.read_bytes(), Scripted(name="other")
    run("a.jsonl", judge, restart=True)
    assert out.with_name("a.jsonl.bak").read_bytes() == before
    assert len(judge.asked) == 20
    assert {record.judge.name for record in records(out) if record.judge} == {"other"}


def test_an_answer_whose_text_changed_since_is_an_error_and_nothing_is_called_kept(
    jsonl: Any, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.jsonl"
    rows = response_rows(2)
    annotate(prompts, jsonl("r.jsonl", rows), out, Scripted(), SPLITTER)
    prompts.write_text(prompts.read_text() + "\n")
    changed = [row | {"response": "Other text."} for row in rows]
    with pytest.raises(InputError, match=r"a\.jsonl: 'r0' was annotated here with another text"):
        annotate(prompts, jsonl("r.jsonl", changed), out, Scripted(), SPLITTER)
    assert "has changed since" not in capsys.readouterr().err
    annotate(prompts, jsonl("r.jsonl", rows[:1]), out, Scripted(), SPLITTER)
    said = " ".join(capsys.readouterr().err.split())
    assert all(f"the {role} file has changed since the run recorded" in said for role in ("prompts", "responses"))


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize(
    ("judge", "what"),
    [
        (Scripted(name="other"), "judge (name: 'scripted' -> 'other')"),
        (Scripted(model="big"), "judge (model: None -> 'big')"),
    ],
)
def test_an_output_without_its_meta_file_is_not_continued_by_another_judge(
    jsonl: Any, prompts: Path, responses: Path, tmp_path: Path, judge: Scripted, what: str, more: bool
) -> None:
    out = tmp_path / "a.jsonl"
    annotate(prompts, responses, out, Scripted(), SPLITTER)
    meta_file(out).unlink()
    before = out.read_bytes()
    if more:
        jsonl("responses.jsonl", response_rows(12))
    with pytest.raises(CannotContinue) as error:
        annotate(prompts, responses, out, judge, SPLITTER)
    assert f"a.jsonl: 'r0' has its labels from another {what}" in str(error.value)
    assert "use another `out` or `restart`" in str(error.value)
    assert (judge.asked, out.read_bytes(), meta_file(out).exists()) == ([], before, False)
    assert annotate(prompts, responses, out, Scripted(), SPLITTER).already_there == 10  # the same judge goes on


def test_a_gold_file_is_not_continued(prompts: Path, responses: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    gold = Annotation(id="r0", prompt_id="q", response="This is right 0. This is wrong 0.", sentences=[])
    write_records(out, [gold])
    with pytest.raises(InputError, match="none is named, it may be a gold file -> 'scripted'"):
        annotate(prompts, responses, out, Scripted(), SPLITTER)


@pytest.mark.parametrize("retry_failed", [False, True])
def test_an_answer_that_went_to_another_prompt_since_is_an_error(
    jsonl: Any, run: Run, failed: Path, retry_failed: bool
) -> None:
    jsonl("prompts.jsonl", [{"id": "new", "prompt": "Where?", "reference": "Here."}])
    jsonl("responses.jsonl", [row | {"prompt_id": "new"} for row in failing_rows(8)])
    before, judge = failed.read_bytes(), Scripted(healed=True)
    with pytest.raises(CannotContinue) as error:
        run("a.jsonl", judge, retry_failed=retry_failed)
    assert "'r0' is annotated here as an answer to the prompt 'q', and now it answers 'new'" in str(error.value)
    assert (judge.asked, failed.read_bytes()) == ([], before)


def test_a_judge_that_cannot_work_leaves_no_file(prompts: Path, responses: Path, tmp_path: Path) -> None:
    class Broken(Scripted):
        def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
            next(iter(tasks))
            raise UserError("no server")
            yield

    with pytest.raises(UserError, match="no server"):
        annotate(prompts, responses, tmp_path / "a.jsonl", Broken(), SPLITTER)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["prompts.jsonl", "responses.jsonl"]


# --- who a judge is --------------------------------------------------------------------------------


def test_another_maskdpo_goes_on_where_its_verdicts_are_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lexical", "llm"):
        module = importlib.import_module(f"maskdpo.annotate.judges.{name}")
        assert getattr(module, "maskdpo", None) is None, "it knows nothing of the package's version"
    out, _ = run("a.jsonl", get_judge("lexical", make_backend=no_backend))
    before = out.read_bytes()
    monkeypatch.setattr(maskdpo, "__version__", "9.9")
    run("a.jsonl", get_judge("lexical", make_backend=no_backend))
    assert out.read_bytes() == before
    monkeypatch.setattr("maskdpo.annotate.judges.lexical.VERSION", "9.9")
    with pytest.raises(UserError, match=r"version: '0\.1\.0' -> '9\.9'.*Labels of different judges are not mixed"):
        run("a.jsonl", get_judge("lexical", make_backend=no_backend))


def test_the_files_of_a_judge_may_have_been_told_by_their_dates(
    run: Run, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an output that was begun before contents were compared."""
    monkeypatch.setenv("MASKDPO_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(tiny_model, tmp_path / "judge"))

    def judge(revision: str, **options: Any) -> Scripted:
        made = Scripted(name="llm", model=str(folder), **options)
        made.info = made.info.model_copy(update={"revision": revision})
        return made

    old = identity._by_dates(folder)
    with pytest.raises(KeyboardInterrupt):
        run("a.jsonl", judge(old, stop_after=4))
    out, _ = run("a.jsonl", judge(identity.fingerprint(str(folder))))
    assert [record.judge and record.judge.revision for record in records(out)] == [old] * 10
    (folder / "chat_template.jinja").write_text("another")
    (folder / "config.json").touch()
    with pytest.raises(UserError, match="revision"):
        run("a.jsonl", judge(identity.fingerprint(str(folder))))


@pytest.mark.parametrize("name", ["llm", "classifier"])
def test_the_commit_of_a_judge_may_be_known_only_after_its_download(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def judge(**options: Any) -> Scripted:
        made = Scripted(name=name, model="org/judge", **options)
        files = identity.fingerprint("org/judge")
        made.info = made.info.model_copy(update={"revision": files if files != "org/judge" else None})
        return made

    fitted = Calibration(judge=judge().info, aim="balanced", parameters=Parameters())
    with pytest.raises(KeyboardInterrupt):
        run("a.jsonl", judge(stop_after=4), rule=Rule(fitted))
    snapshot = tmp_path / "hub" / "models--org--judge" / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = tmp_path / "hub" / "models--org--judge" / "refs"
    refs.mkdir()
    (refs / "main").write_text("c" * 40)
    assert judge().info.revision == f"org/judge@{'c' * 40}"
    out, _ = run("a.jsonl", judge(), rule=Rule(fitted))
    assert {record.judge.revision for record in records(out) if record.judge} == {None}
    known = fitted.model_copy(update={"judge": judge().info.model_copy(update={"revision": f"org/judge@{'d' * 40}"})})
    with pytest.raises(UserError, match="the calibration was made for another judge"):
        run("b.jsonl", judge(), rule=Rule(known))


def test_a_judge_of_ones_own_may_name_revisions_in_its_own_way(run: Run) -> None:
    def judge(**options: Any) -> Scripted:
        made = Scripted(model="mine", **options)
        made.info = made.info.model_copy(update={"revision": "v2"})
        return made

    with pytest.raises(KeyboardInterrupt):
        run("a.jsonl", judge(stop_after=4))
    assert len(records(run("a.jsonl", judge())[0])) == 10


# --- judges of one's own ---------------------------------------------------------------------------

OWN = """
from maskdpo.annotate.judge import Verdict
from maskdpo.schemas import JudgeInfo, Label, Status
class Mine:
    info = JudgeInfo(name="mine", version="7")
    def judge(self, tasks):
        for task in tasks:
            yield task, [Verdict(Label.UNVERIFIABLE)] * len(task.spans)
def make():
    return Mine()
ready = Mine()
class Failing(Mine):
    def judge(self, tasks):
        for task in tasks:
            yield task, [Verdict(None, Status.REFUSED)] * len(task.spans)
failing = Failing()
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
    out, stats = run("a.jsonl", get_judge(f"{own}:{attribute}", make_backend=no_backend))
    assert stats.file.labels == {Label.UNVERIFIABLE: 20}
    assert {record.judge.name for record in records(out) if record.judge} == {"mine"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oracle", "unknown judge 'oracle'; known: lexical, llm, classifier, and package.module:object"),
        ("no_such_module:make", "`judge` no_such_module:make: cannot be imported"),
        ("own_judge_for_test:nothing", "own_judge_for_test has no 'nothing'"),
        ("own_judge_for_test:not_a_judge", "dict is no judge: it needs 'info' and 'judge'"),
        (":make", "cannot be imported"),
    ],
)
def test_names_that_are_no_judge(own: str, name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_judge(name, make_backend=no_backend)
    assert message in str(error.value)


class Careless(Scripted):
    """Leaves out the answers of ``lost``, gives back twice those of ``twice``; the rest as ``spoil`` makes it."""

    def __init__(
        self,
        *,
        lost: tuple[str, ...] = (),
        twice: tuple[str, ...] = (),
        spoil: Callable[[list[Verdict]], Any] = lambda verdicts: verdicts,
        **options: Any,
    ):
        super().__init__(**options)
        self._lost, self._twice, self._spoil = lost, twice, spoil

    def _back(self, window: list[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        for task, verdicts in super()._back(window):
            if task.response.id in self._twice:
                yield task, verdicts
            if task.response.id not in self._lost:
                yield task, self._spoil(verdicts) if task.response.id == "r4" else verdicts


def test_answers_that_the_judge_does_not_return(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with pytest.raises(UserError, match=r"a\.jsonl: 2 answers are missing, which the judge scripted did not return"):
        run("a.jsonl", Careless(lost=("r3", "r7")))
    assert (len(records(out)), RunMeta.model_validate_json(meta_file(out).read_bytes()).status) == (8, "running")
    judge = Scripted()
    run("a.jsonl", judge)
    assert {identity for identity, _ in judge.asked} == {"r3", "r7"}
    assert RunMeta.model_validate_json(meta_file(out).read_bytes()).status == "complete"


def test_answers_asked_again_that_the_judge_does_not_return(run: Run, failed: Path, healed: bytes) -> None:
    with pytest.raises(UserError, match="2 answers are missing"):
        run("a.jsonl", Careless(lost=("r3", "r9"), healed=True), retry_failed=True)
    judge = Scripted(healed=True)
    run("a.jsonl", judge, retry_failed=True)
    assert {identity for identity, _ in judge.asked} == {"r3", "r9"}
    assert failed.read_bytes() == healed


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v[:1], "the judge scripted gave 1 verdicts for the 2 sentences of the answer 'r4'"),
        (lambda v: [*v, v[0]], "the judge scripted gave 3 verdicts for the 2 sentences of the answer 'r4'"),
        (lambda v: [Verdict(None), v[1]], "scripted gave a wrong verdict on the answer 'r4': status is 'ok' but label"),
        (lambda v: [v[0], Verdict(Label.NO_FACT, confidence=7)], "on the answer 'r4': "),
    ],
)
def test_verdicts_that_are_none(run: Run, tmp_path: Path, spoil: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        run("a.jsonl", Careless(spoil=spoil))
    assert message in str(error.value)
    assert [record.id for record in records(tmp_path / "a.jsonl")] == ["r2", "r1", "r0", "r5"]


def test_an_answer_that_the_judge_returns_twice(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the judge scripted returned the answer 'r4' twice"):
        run("a.jsonl", Careless(twice=("r4",)))
    assert [record.id for record in records(tmp_path / "a.jsonl")] == ["r2", "r1", "r0", "r5", "r4"]
    run("a.jsonl", Scripted())


# --- asking again ----------------------------------------------------------------------------------


@pytest.fixture
def failed(jsonl: Any, prompts: Path, tmp_path: Path) -> Path:
    """An output of 8 answers with 3 failed sentences; the responses file has 10 answers by now (4 failures)."""
    out = tmp_path / "a.jsonl"
    annotate(prompts, jsonl("responses.jsonl", failing_rows(8)), out, Scripted(), SPLITTER)
    jsonl("responses.jsonl", failing_rows(10))
    return out


@pytest.fixture
def healed(jsonl: Any, prompts: Path, tmp_path: Path) -> bytes:
    """What a judge that never fails makes of the 10 answers."""
    out = tmp_path / "healed.jsonl"
    annotate(prompts, jsonl("all.jsonl", failing_rows(10)), out, Scripted(healed=True), SPLITTER)
    return out.read_bytes()


def test_asking_again_asks_for_what_failed_and_what_is_new_and_nothing_else(
    run: Run, failed: Path, healed: bytes
) -> None:
    judge = Scripted(healed=True)
    _, stats = run("a.jsonl", judge, retry_failed=True)
    again = [(f"r{i}", "Here comes api_error.") for i in (0, 3, 6)]
    new = [(f"r{i}", text) for i in (8, 9) for text in (f"This is right {i}.", f"This is wrong {i}.")]
    assert sorted(judge.asked) == sorted([*again, *new, ("r9", "Here comes api_error."), ("r9", "This is right.")])
    assert judge.given["r3"] == ["This is right 3.", "This is wrong 3.", "This is right."]
    assert failed.read_bytes() == healed
    assert not failed.with_name("a.jsonl.retry").exists()
    assert (stats.responses, stats.already_there, stats.run_responses) == (10, 8, 5)
    assert (stats.run_sentences, stats.run_retried) == (3 + 6, 3)
    assert (stats.file.annotations, stats.file.sentences, stats.file.failed) == (10, 28, 0)
    assert stats.file.labels == {Label.NO_HALLUCINATION: 18, Label.CONTRADICTORY: 10}


def test_without_the_flag_failures_stay_as_they_are(run: Run, failed: Path) -> None:
    judge, before = Scripted(healed=True), failed.read_bytes()
    _, stats = run("a.jsonl", judge)
    assert {identity for identity, _ in judge.asked} == {"r8", "r9"}
    assert failed.read_bytes().startswith(before)
    assert (stats.file.failed, stats.run_retried) == (3, 0)


def test_what_fails_again_stays_failed_and_may_be_asked_once_more(run: Run, failed: Path, healed: bytes) -> None:
    run("a.jsonl", Scripted())
    before = failed.read_bytes()
    _, stats = run("a.jsonl", Scripted(), retry_failed=True)
    assert (failed.read_bytes(), stats.file.failed, stats.run_retried) == (before, 4, 4)
    run("a.jsonl", Scripted(healed=True), retry_failed=True)
    assert failed.read_bytes() == healed


def test_asking_again_where_nothing_failed_does_nothing(run: Run) -> None:
    out, _ = run("a.jsonl", Scripted())
    before, judge = (out.read_bytes(), meta_file(out).read_bytes(), out.stat().st_mtime_ns), Scripted()
    _, stats = run("a.jsonl", judge, retry_failed=True)
    assert (out.read_bytes(), meta_file(out).read_bytes(), out.stat().st_mtime_ns) == before
    assert (judge.asked, stats.run_responses, stats.file.sentences) == ([], 0, 20)


@pytest.mark.parametrize("retry_failed", [False, True])
@pytest.mark.parametrize("after", [1, 2, 4])
def test_renewed_records_of_an_interrupted_run_are_put_in_by_the_next(
    run: Run, failed: Path, healed: bytes, after: int, retry_failed: bool
) -> None:
    side, before = failed.with_name("a.jsonl.retry"), failed.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run("a.jsonl", Scripted(healed=True, stop_after=after), retry_failed=True)
    assert failed.read_bytes().startswith(before)  # append-only
    renewed = {record.id for record in records(side)}
    assert len(renewed) == min(after, 3)
    with side.open("ab") as file:
        file.write(b'{"id":"r6","prompt_id":"q","resp')  # and a torn line
    left, judge = side.read_bytes(), Scripted(healed=True)
    _, stats = run("a.jsonl", judge, retry_failed=retry_failed)
    assert not side.exists()
    assert not renewed & {identity for identity, _ in judge.asked}
    assert stats.file.failed == (0 if retry_failed else 3 - len(renewed))
    after_once = failed.read_bytes()
    assert (after_once == healed) == (stats.file.failed == 0)
    side.write_bytes(left)  # as if it had been killed before the file was deleted
    run("a.jsonl", Scripted(), retry_failed=False)
    assert (failed.read_bytes(), side.exists()) == (after_once, False)


def test_renewed_records_of_another_judge_are_refused(run: Run, failed: Path) -> None:
    side, before = failed.with_name("a.jsonl.retry"), failed.read_bytes()
    side.write_bytes(before.replace(b'"scripted"', b'"other"'))
    with pytest.raises(CannotContinue, match=r"a\.jsonl\.retry: 'r0' has its labels from another judge"):
        run("a.jsonl", Scripted())
    assert (failed.read_bytes(), side.exists()) == (before, True)
    run("a.jsonl", Scripted(name="third"), restart=True)
    assert failed.with_name("a.jsonl.retry.bak").exists()
    assert not side.exists()


def test_an_annotation_whose_response_is_gone_is_kept_and_not_asked_again(
    jsonl: Any, prompts: Path, run: Run, failed: Path
) -> None:
    old = {record.id: record for record in records(failed)}
    jsonl("responses.jsonl", failing_rows(10)[1:])
    judge = Scripted(healed=True)
    _, stats = run("a.jsonl", judge, retry_failed=True)
    found = records(failed)
    assert [record.id for record in found] == [*(f"r{i}" for i in range(1, 10)), "r0"]
    assert found[-1] == old["r0"]
    assert "r0" not in {identity for identity, _ in judge.asked}
    assert (stats.responses, stats.file.annotations, stats.file.failed) == (9, 10, 1)


# --- references ------------------------------------------------------------------------------------


class Referring(Scripted):
    needs_reference = True


@pytest.mark.parametrize("blank", [None, "", " \n", [], ["", " "]])
def test_a_prompt_without_the_reference_that_the_judge_needs(jsonl: Any, tmp_path: Path, blank: Any) -> None:
    references = {"unused": None, "good": ["", "x"], "bad": blank, "worse": blank}
    rows = [{"id": key, "prompt": "?", "reference": reference} for key, reference in references.items()]
    prompts = jsonl("p.jsonl", rows)
    answers = [row | {"prompt_id": q} for row, q in zip(response_rows(3), ("good", "worse", "bad"), strict=True)]
    responses, judge = jsonl("r.jsonl", answers), Referring()
    with pytest.raises(InputError) as error:
        annotate(prompts, responses, tmp_path / "a.jsonl", judge, SPLITTER)
    assert str(error.value) == (
        f"{prompts}:3: reference: prompt 'bad' has no reference, and the scripted judge compares with one (prompts "
        "without a reference: 2 of 3). Add the references, take another judge, or leave the answers to such prompts "
        "without labels: `missing_reference` skip"
    )
    assert (judge.asked, sorted(file.name for file in tmp_path.iterdir())) == ([], ["p.jsonl", "r.jsonl"])
    annotate(prompts, responses, tmp_path / "a.jsonl", Scripted(), SPLITTER)  # needs none
    annotate(prompts, jsonl("r.jsonl", answers[:1]), tmp_path / "b.jsonl", Referring(), SPLITTER)


MIXED = [
    {"id": "a", "prompt_id": "bare", "response": "# Head\n\nThis is right. This is wrong."},
    {"id": "b", "prompt_id": "full", "response": "This is right. Here comes api_error."},
    {"id": "c", "prompt_id": "bare", "response": "This is right. This is wro", "finish_reason": "length"},
    {"id": "d", "prompt_id": "full", "response": "This is wrong."},
]


def statuses(out: Path) -> dict[str, list[str]]:
    return {record.id: [sentence.status.value for sentence in record.sentences] for record in records(out)}


def test_answers_without_a_reference_are_written_and_no_judge_sees_them(jsonl: Any, tmp_path: Path) -> None:
    prompts = jsonl("p.jsonl", [{"id": "bare", "prompt": "?"}, {"id": "full", "prompt": "?", "reference": "Here."}])
    responses, out, judge = jsonl("r.jsonl", MIXED), tmp_path / "a.jsonl", Referring()
    stats = annotate(prompts, responses, out, judge, SPLITTER, missing_reference="skip")
    assert list(judge.given) == ["b", "d"]
    assert [record.id for record in records(out)] == ["a", "b", "c", "d"]
    without = {"a": ["ok", "no_reference", "no_reference"], "c": ["no_reference", "fragment"], "d": ["ok"]}
    assert statuses(out) == without | {"b": ["ok", "api_error"]}
    assert (stats.file.failed, stats.summary()["whole_file"]["statuses"]["no_reference"]) == (1, 3)
    assert [record.counts.judged for record in records(out)] == [1, 1, 0, 1]

    # the prompt still has no reference: only what has failed is asked again
    judge = Referring(healed=True)
    annotate(prompts, responses, out, judge, SPLITTER, missing_reference="skip", retry_failed=True)
    assert judge.asked == [("b", "Here comes api_error.")]
    assert statuses(out) == without | {"b": ["ok", "ok"]}

    # now it has one
    prompts = jsonl("p.jsonl", [{"id": key, "prompt": "?", "reference": "Here."} for key in ("bare", "full")])
    judge = Referring()
    annotate(prompts, responses, out, judge, SPLITTER)
    assert judge.asked == []
    stats = annotate(prompts, responses, out, judge, SPLITTER, retry_failed=True)
    assert judge.asked == [("a", "This is right."), ("a", "This is wrong."), ("c", "This is right.")]
    assert statuses(out) == {"a": ["ok"] * 3, "b": ["ok"] * 2, "c": ["ok", "fragment"], "d": ["ok"]}
    assert (stats.run_retried, stats.file.statuses[Status.NO_REFERENCE]) == (3, 0)


def test_a_run_that_was_stopped_goes_on_with_and_without_references(jsonl: Any, tmp_path: Path) -> None:
    prompts = jsonl("p.jsonl", [{"id": "bare", "prompt": "?"}, {"id": "full", "prompt": "?", "reference": "Here."}])
    responses, out = jsonl("r.jsonl", MIXED), tmp_path / "a.jsonl"
    with pytest.raises(KeyboardInterrupt):
        annotate(prompts, responses, out, Referring(window=1, stop_after=1), SPLITTER, missing_reference="skip")
    assert [record.id for record in records(out)] == ["b"]
    annotate(prompts, responses, out, Referring(), SPLITTER, missing_reference="skip")
    assert [record.id for record in records(out)] == ["a", "b", "c", "d"]
    annotate(prompts, responses, tmp_path / "once.jsonl", Referring(), SPLITTER, missing_reference="skip")
    assert records(out) == records(tmp_path / "once.jsonl")


def test_what_has_no_reference_is_in_no_pair_and_no_figure(
    jsonl: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = jsonl("p.jsonl", [{"id": "bare", "prompt": "?"}, {"id": "full", "prompt": "?", "reference": "Here."}])
    responses, out = (
        jsonl("r.jsonl", [MIXED[0], MIXED[3], MIXED[3] | {"id": "e", "response": "Right."}]),
        tmp_path / "a",
    )
    annotate(prompts, responses, out, Referring(), SPLITTER, missing_reference="skip")
    only = tmp_path / "only"
    write_records(only, records(out)[1:])
    whole, part = (maskdpo.evaluate_annotations(file).summary for file in (out, only))
    assert (repr(whole), "1 of 3 answers are left out" in capsys.readouterr().err.replace("\n", " ")) == (
        repr(part),
        True,
    )
    built = maskdpo.build_pairs(prompts, out)
    assert (len(built.train), built.stats.dropped_answers) == (1, {DroppedAnswer.NO_REFERENCE: 1})
    write_records(only, records(out)[:1])
    with pytest.raises(InputError, match="no answer was judged: all prompts lacked a reference"):
        maskdpo.evaluate_annotations(only)


def test_reasoning_inside_answers_is_noticed(jsonl: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = jsonl("think-prompts.jsonl", [{"id": "p", "prompt": "?", "language": "fr"}])
    answers = [
        {"id": "a", "prompt_id": "p", "response": "<think>\nHm.\n</think>\n\nLyon."},
        {"id": "b", "prompt_id": "p", "response": "Nice."},
    ]
    stats = annotate(prompts, jsonl("think.jsonl", answers), tmp_path / "think-a.jsonl", Scripted(), SPLITTER)
    assert "think.jsonl: 1 answer begins with <think>" in capsys.readouterr().err.replace("\n", "")
    assert stats.file.summary()["languages"] == {
        "fr": {"answers": 2, "right": 5, "wrong": 0, "no_fact": 0, "not_judged": 0}
    }


def test_a_missing_reference_in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    prompts = [Prompt(id="bare", prompt="?"), Prompt(id="full", prompt="?", reference="Paris is in France.")]
    answers = [Response(id=prompt.id, prompt_id=prompt.id, response="Paris is in France.") for prompt in prompts]
    with pytest.raises(UserError, match=r"'bare' has no reference, .* \(prompts without a reference: 1 of 2\)"):
        maskdpo.annotate_responses(prompts, answers, judge="lexical")
    found = maskdpo.annotate_responses(prompts, answers, judge="lexical", missing_reference="skip")
    assert {answer.id: answer.sentences[0].status for answer in found} == {"full": "ok", "bare": "no_reference"}


# --- figures ---------------------------------------------------------------------------------------


class Costly(Scripted):
    """Has worked before, and says what it costs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.usage = Usage(calls=1000, prompt_tokens=1000, cached_tokens=1000)

    def _back(self, window: list[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        for task, verdicts in super()._back(window):
            self.usage.calls += len(verdicts)
            self.usage.prompt_tokens += 10 * len(verdicts)
            self.usage.cached_tokens += 4 * len(verdicts)
            yield task, verdicts


def test_the_summary_keeps_the_whole_file_and_this_run_apart(run: Run, failed: Path, tmp_path: Path) -> None:
    summary = tmp_path / "new" / "summary.json"
    run("a.jsonl", Costly(), summary=summary)
    figures = json.loads(summary.read_text())
    assert RunMeta.model_validate_json(meta_file(failed).read_bytes()).counts == figures
    seconds, rate = (figures["this_run"].pop(key) for key in ("seconds", "sentences_per_second"))
    assert figures["this_run"].pop("cost") is None
    assert 6 / rate == pytest.approx(seconds, abs=0.0006)  # both are rounded
    no_fact = dict.fromkeys(("unverifiable", "hallucination", "no_fact"), 0)
    assert figures == {
        "responses": 10,
        "already_there": 8,
        "whole_file": {
            "annotations": 10,
            "sentences": 28,
            "failed": 4,
            "labels": {"no_hallucination": 14, "contradictory": 10, **no_fact},
            "statuses": {"ok": 24, "refused": 0, "parse_error": 0, "api_error": 4, "truncated": 0}
            | {"unsure": 0, "fragment": 0, "no_reference": 0},
            "languages": figures["whole_file"]["languages"],
        },
        "this_run": {
            "responses": 2,
            "sentences": 6,
            "sentences_asked_again": 0,
            "usage": {
                "calls": 6,
                "repeats": 0,
                "references_cut": 0,
                "prompt_tokens": 60,
                "cached_tokens": 24,
                "completion_tokens": 0,
                "cached_share": 0.4,
            },
        },
    }
    run("a.jsonl", Scripted(), summary=summary)  # nothing is left to do
    idle = json.loads(summary.read_text())
    assert idle["whole_file"] == figures["whole_file"]
    assert idle["this_run"] == {
        "responses": 0,
        "sentences": 0,
        "sentences_asked_again": 0,
        "seconds": 0.0,
        "sentences_per_second": None,
        "usage": None,
        "cost": None,
    }


def test_plain_lines_appear_while_the_judge_is_slow(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(Scripted):
        def _back(self, window: list[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
            for pair in super()._back(window):
                time.sleep(0.1)
                yield pair

    monkeypatch.setattr(console, "PLAIN_INTERVAL_S", 0.04)
    monkeypatch.setattr(labelling, "FLUSH_RECORDS", 4)
    run("a.jsonl", Slow(window=5))
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("annotate: 0/10 responses, 0%, 0 responses/s") for line in lines) >= 3
    assert re.fullmatch(
        r"annotate: 4/10 responses, 40%, [\d.]+ responses/s, eta 0:00:0\d  "
        r"\d+ sentences/s: 4 right, 4 wrong, 0 no fact, 0 unsure, 0 failed",
        next(line for line in lines if " 4/10 " in line),
    )


def test_the_bar_counts_characters_and_every_reply(
    prompts: Path, jsonl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Telling(Scripted):
        def heard(self, task: Task, share: float) -> None:
            raise AssertionError("annotate puts a function of its own here")

        def _back(self, window: list[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
            for task in window:
                for _ in task.spans:
                    self.heard(task, 1 / len(task.spans))
            yield from super()._back(window)

    shares: list[tuple[int, float]] = []
    original = console.ProgressBar.advance

    def advance(self: console.ProgressBar, count: int = 1, note: str | None = None, work: float | None = None) -> None:
        original(self, count, note, work)
        shares.append((self.done, round(self.share, 3)))

    monkeypatch.setattr(console.ProgressBar, "advance", advance)
    monkeypatch.setattr(labelling, "FLUSH_RECORDS", 1)
    rows = [response_rows(2)[0], response_rows(2)[1] | {"response": "This is right. " * 9 + "This is wrong 10."}]
    out = tmp_path / "a.jsonl"
    annotate(prompts, jsonl("two.jsonl", rows), out, Telling(window=1), SPLITTER)
    first, whole = len(rows[0]["response"]), sum(len(row["response"]) for row in rows)
    assert shares[:3] == [(0, round(first / 2 / whole, 3)), (0, round(first / whole, 3)), (1, round(first / whole, 3))]
    assert len(shares) == 2 + 1 + 10 + 1
    assert shares[-2:] == [(1, 1.0), (2, 1.0)]

    shares.clear()
    annotate(prompts, jsonl("three.jsonl", [*rows, response_rows(3)[2]]), out, Scripted(), SPLITTER)
    assert shares == [(3, 1.0)], "a judge that tells nothing"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_resumed_bar_starts_where_the_run_before_ended(
    run: Run, failed: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    seen: list[tuple[int, int | None]] = []
    original = console.ProgressBar.advance
    shown = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    monkeypatch.setattr(console, "err", shown)

    def advance(self: console.ProgressBar, count: int = 1, note: str | None = None, work: float | None = None) -> None:
        seen.append((self.done, self.total))
        original(self, count, note, work)

    monkeypatch.setattr(console.ProgressBar, "advance", advance)
    run("a.jsonl", Scripted(healed=True), retry_failed=True)
    assert seen == [(5, 10)]  # 8 were there, 3 of them are asked again
    assert isinstance(shown.file, io.StringIO)
    assert ("10/10" in shown.file.getvalue()) == terminal


def test_the_closing_table_and_its_advice(
    prompts: Path, failed: Path, own: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from maskdpo.cli import main

    def command(*options: str) -> tuple[str, str]:
        files = [str(prompts), str(failed.with_name("responses.jsonl")), "--out", str(failed.with_name("c.jsonl"))]
        monkeypatch.setattr(sys, "argv", ["maskdpo", "annotate", *files, *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        captured = capsys.readouterr()
        return re.sub(r" *│ *", "|", captured.out), captured.err

    table, warning = command("--judge", f"{own}:failing")
    assert "|sentences in the file|28|" in table
    assert "|not judged: refused|28|" in table
    assert "asked again" not in table
    assert "28 sentences could not be judged" in warning
    assert "the judge has answered nothing" in warning
    assert "repeat the command with --retry-failed to ask again" in warning
    table, warning = command("--judge", f"{own}:make", "--retry-failed")
    assert "|unverifiable|28|" in table
    assert "|this run: of them asked again|28|" in table
    assert "not judged" not in table + warning
    table, _ = command("--judge", f"{own}:make", "--retry-failed")
    assert "|annotated before|10|" in table
    assert "this run" not in table


@pytest.mark.parametrize("installed", [False, True])
def test_nltk_learns_from_the_responses_where_no_model_is_installed(
    prompts: Path, responses: Path, tmp_path: Path, own: str, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    punkt = pytest.importorskip("nltk.tokenize.punkt")
    from maskdpo.annotate import settings
    from maskdpo.cli import main

    model = punkt.PunktSentenceTokenizer("One. Two.") if installed else None
    monkeypatch.setattr(sys.modules["maskdpo.text.splitters.nltk_splitter"], "_installed_model", lambda language: model)
    monkeypatch.setattr(settings, "LEARNED_FROM", 5)
    out = tmp_path / "a.jsonl"
    arguments = [str(prompts), str(responses), "--out", str(out), "--judge", f"{own}:make", "--splitter", "nltk"]
    monkeypatch.setattr(sys, "argv", ["maskdpo", "annotate", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    trained = nltk_splitter([row["response"] for row in response_rows(5)])
    expected = "nltk-2:installed" if installed else trained.name
    assert {record.judge.splitter for record in records(out) if record.judge} == {expected}


@pytest.mark.slow
def test_memory_grows_with_the_ids_only(
    jsonl: Any, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 6 MB of answers no more than a few are held at a time, on a resumed run too, with failures to ask again."""

    class Forgetful(Scripted):
        def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
            for task in tasks:
                yield from self._back([task])

    monkeypatch.setattr(labelling, "FLUSH_RECORDS", 8)
    text = "This is right" + " and so on" * 3000 + ". Here comes api_error."
    rows = [row | {"response": text} for row in response_rows(200)]
    responses, out = jsonl("r.jsonl", rows), tmp_path / "a.jsonl"
    annotate(prompts, jsonl("half.jsonl", rows[:100]), out, Forgetful(), SPLITTER)
    tracemalloc.start()
    stats = annotate(prompts, responses, out, Forgetful(healed=True), SPLITTER, retry_failed=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (stats.file.failed, stats.run_responses) == (0, 200)
    assert peak < 2e6 < responses.stat().st_size / 3


# --- killed ----------------------------------------------------------------------------------------

ANNOTATE_PROCESSES = """
import os, sys, time
from pathlib import Path
from maskdpo.annotate import labelling
from tests.annotate.test_labelling import SPLITTER, Scripted
labelling.FLUSH_RECORDS = 3
fsync = os.fsync
def slow_fsync(handle):  # a slow disk: kills meet the writing, the rewriting and the renaming as well
    time.sleep(0.004)
    fsync(handle)
    time.sleep(0.004)
os.fsync = slow_fsync
files = map(Path, sys.argv[1:4])
for _ in sys.stdin:  # a fork a line: imports are waited for once
    child = os.fork()
    if not child:
        labelling.annotate(*files, Scripted(window=5, healed=True), SPLITTER, retry_failed=bool(sys.argv[4]))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def kill_until_done(arguments: list[str], *, kills: int, within: float, seed: int) -> int:
    """Kill the command ``kills`` times at random moments of its work, then at later and later ones until it ends."""
    rng, killed, code = random.Random(seed), 0, ""
    with subprocess.Popen(
        [sys.executable, "-c", ANNOTATE_PROCESSES, *arguments],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        while code != "0":
            print(file=nursery.stdin, flush=True)
            child = int(nursery.stdout.readline())
            time.sleep(rng.uniform(0, within * 1.5 ** max(0, killed - kills)))
            with contextlib.suppress(ProcessLookupError):  # it may have ended
                os.kill(child, signal.SIGKILL)
            code = nursery.stdout.readline().strip()
            assert code in ("0", "-9")
            killed += code == "-9"
    return killed


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_in_the_same_file(jsonl: Any, prompts: Path, tmp_path: Path) -> None:
    responses = jsonl("r.jsonl", failing_rows(300))
    whole, out = tmp_path / "whole.jsonl", tmp_path / "a.jsonl"
    annotate(prompts, responses, whole, Scripted(window=5, healed=True), SPLITTER)
    assert kill_until_done([str(prompts), str(responses), str(out), ""], kills=25, within=0.06, seed=2) >= 20
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_killed_while_it_asks_again_and_merges(jsonl: Any, prompts: Path, tmp_path: Path) -> None:
    responses = jsonl("r.jsonl", failing_rows(150))
    whole, out = tmp_path / "whole.jsonl", tmp_path / "a.jsonl"
    annotate(prompts, responses, whole, Scripted(healed=True), SPLITTER)
    annotate(prompts, jsonl("some.jsonl", failing_rows(120)), out, Scripted(), SPLITTER)
    # what is renewed is put in by the next run, so that most kills meet a merge
    assert kill_until_done([str(prompts), str(responses), str(out), "yes"], kills=12, within=0.06, seed=3) >= 8
    assert out.read_bytes() == whole.read_bytes()
    assert not out.with_name("a.jsonl.retry").exists()


def test_a_judges_prompts_have_the_date_of_the_run_on_the_next_day_too(
    prompts: Path, responses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Day(date):
        now = date(2026, 1, 31)

        @classmethod
        def today(cls) -> date:  # type: ignore[override]
            return cls.now

    def judge(**more: Any) -> Any:
        made = Scripted(**more)
        made.backend = Speaks()  # type: ignore[attr-defined]
        return made

    monkeypatch.setattr(prompt_date, "date", Day)
    out = tmp_path / "a.jsonl"
    with pytest.raises(KeyboardInterrupt):
        annotate(prompts, responses, out, judge(stop_after=4), SPLITTER)
    Day.now = date(2026, 2, 1)
    again = judge()
    annotate(prompts, responses, out, again, SPLITTER)
    assert again.backend.today == date(2026, 1, 31)
    assert RunMeta.model_validate_json(meta_file(out).read_bytes()).options["prompt_date"] == "2026-01-31"
    fresh = judge()
    annotate(prompts, responses, out, fresh, SPLITTER, restart=True)
    assert fresh.backend.today == date(2026, 2, 1)
    record = json.loads(meta_file(out).read_text())
    record["options"].pop("prompt_date")
    meta_file(out).write_text(json.dumps(record | {"schema_version": 1}))
    assert annotate(prompts, responses, out, judge(), SPLITTER).run_responses == 0, "complete as it was before"


def test_a_judge_and_a_splitter_see_the_answer_and_the_annotation_carries_the_reasoning(
    prompts: Path, jsonl: Any, tmp_path: Path
) -> None:
    rows = failing_rows(3)
    plain, thought = jsonl("plain.jsonl", rows), jsonl("thought.jsonl", [r | {"reasoning": "So. wrong?"} for r in rows])
    found = []
    for name, file in (("plain", plain), ("thought", thought)):
        out = tmp_path / f"{name}.out.jsonl"
        annotate(prompts, file, out, Scripted(), SPLITTER)
        annotate(prompts, file, out, Scripted(healed=True), SPLITTER, retry_failed=True)
        found.append(list(read_records(out, Annotation)))
    assert {record.reasoning for record in found[1]} == {"So. wrong?"}  # renewed records too
    assert [record.model_copy(update={"reasoning": None}) for record in found[1]] == found[0]


def test_answers_of_several_files_are_labelled_together_and_lead_back_to_their_runs(
    jsonl: Any, prompts: Path, tmp_path: Path
) -> None:
    rows = response_rows(5)
    whole, first, second = jsonl("w.jsonl", rows), jsonl("first.jsonl", rows[:3]), jsonl("second.jsonl", rows[3:])
    splitter = get_splitter("markdown")
    annotate(prompts, whole, tmp_path / "whole.jsonl", Scripted(), splitter)
    annotate(prompts, [first, second], tmp_path / "both.jsonl", Scripted(), splitter)
    assert (tmp_path / "both.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert {node.role: node.path.name for node in trace(tmp_path / "both.jsonl").inputs} == {
        "prompts": prompts.name, "responses": "first.jsonl", "responses-2": "second.jsonl",
    }  # fmt: skip
    third = jsonl("third.jsonl", rows[:1])
    with pytest.raises(InputError, match=r"third\.jsonl:1: id: duplicate id .*, first in .*first\.jsonl:1$"):
        annotate(prompts, [first, third], tmp_path / "third.out.jsonl", Scripted(), splitter)


def test_the_reason_of_the_most_frequent_failure_is_said() -> None:
    counts = SentenceCounts()
    assert counts.why_failed == ""
    failures = [("parse_error", "no object"), ("refused", "no"), ("parse_error", "a list"), ("unsure", None)]
    sentences = [Sentence(start=i, end=i + 1, status=status, reason=why) for i, (status, why) in enumerate(failures)]
    counts.add(Annotation(id="a", prompt_id="p", response="four", sentences=sentences))
    assert counts.why_failed == "parse_error: no object"
