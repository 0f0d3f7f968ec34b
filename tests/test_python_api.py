"""docs/python.md runs as it stands; what it leaves out of the library is here."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import maskdpo
from maskdpo import Annotation, Label, Prompt, Response, Sentence, UserError

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = [Prompt(id="q", prompt="Which river?", reference="The Seine crosses Paris.")]
RESPONSES = [
    Response(id="q-0", prompt_id="q", response="The Seine crosses Paris."),
    Response(id="q-1", prompt_id="q", response="The Danube crosses Paris."),
]


def test_the_page_runs_from_top_to_bottom(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKDPO_CACHE", str(tmp_path / "cache"))
    page = (ROOT / "docs" / "python.md").read_text()
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        # the context of the tiny model has no room for the questions of a judge
        model = "smollm2" if "yes-no" in block else tiny_model
        exec(compile(block.replace('"smollm2"', repr(model)), "docs/python.md", "exec"), names)
    assert len(names["built"].train) == 2
    assert {annotation.judge.calibration for annotation in names["relabelled"]} == {names["calibration"].hash}
    assert names["result"].steps[0].loss == pytest.approx(0.6931, abs=1e-3)
    assert (tmp_path / "trained" / "model.safetensors").exists()
    assert "<html" in (tmp_path / "report.html").read_text()
    assert [a.model_copy(update={"judge": None}) for a in names["labelled"]] == [
        a.model_copy(update={"judge": None}) for a in names["annotations"]
    ]
    printed = capsys.readouterr().out
    assert "The Seine crosses Paris." in printed
    assert "`min_margin` is 2, but must lie between 0 and 1" in printed
    assert set(re.findall(r"maskdpo\.(\w+)\(", page)) <= set(maskdpo.__all__)


def test_import_is_quick_and_light() -> None:
    code = (
        "import sys, time\nbegan = time.process_time()\nimport maskdpo\nspent = time.process_time() - began\n"
        "print(spent, [m for m in ('torch', 'pydantic', 'typer', 'numpy') if m in sys.modules])"
    )
    tries = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split(" ", 1)
        for _ in range(3)
    ]
    assert {loaded.strip() for _, loaded in tries} == {"[]"}
    assert min(float(spent) for spent, _ in tries) < 0.1


def test_every_name_is_there() -> None:
    assert all(getattr(maskdpo, name) is not None for name in maskdpo.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = maskdpo.nothing


def test_judges_and_splitters_may_be_objects() -> None:
    judge, splitter = maskdpo.make_judge("lexical"), maskdpo.make_splitter()
    found = list(maskdpo.annotate_responses(PROMPTS, RESPONSES, judge=judge, splitter=splitter))
    labels = [annotation.sentences[0].label for annotation in found]
    assert labels == [Label.NO_HALLUCINATION, Label.CONTRADICTORY]
    assert {annotation.judge.splitter for annotation in found if annotation.judge} == {splitter.name}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: maskdpo.make_judge("oracle"), r"`judge`: unknown judge 'oracle'; known: lexical, llm"),
        (lambda: maskdpo.make_judge("llm"), "`judge` llm needs `model`"),
        (lambda: maskdpo.make_backend("m", batch_size=0), "`batch_size`: Input should be greater than or equal to 1"),
        (lambda: maskdpo.make_backend("m", colour="red"), "colour"),
        (lambda: maskdpo.sample_responses(PROMPTS, model="m", n=0), "`n`: Input should be"),
        (lambda: maskdpo.build_pairs(PROMPTS, [], score="best"), "`score`: unknown score 'best'"),
        (lambda: maskdpo.evaluate_annotations([], length_penalty=-1), "`length_penalty`: Input should be"),
        (lambda: maskdpo.write_report([], "r.html", model="m", method="nope"), "nope"),
        (
            lambda: maskdpo.push_dataset([], [], [], repo="a/b", license="mit", dry_run="x"),
            "`dry_run` is for the command `maskdpo push`",
        ),
        (lambda: maskdpo.train_model([], "out", model="m", method="ppo"), "`method`: unknown method 'ppo'"),
        (
            lambda: list(maskdpo.annotate_responses([], RESPONSES, judge="lexical")),
            "response 'q-0': no prompt has the id 'q'",
        ),
    ],
)
def test_errors_name_parameters(call: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "--" not in str(caught.value)


ANNOTATIONS = [
    Annotation(**dict(response), sentences=[Sentence(start=0, end=len(response.response), label=label)])
    for response, label in zip(RESPONSES, (Label.NO_HALLUCINATION, Label.CONTRADICTORY), strict=True)
]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: list(maskdpo.annotate_responses(PROMPTS, PROMPTS, judge="lexical")), "record 0 is of the type Prompt"),
        (lambda: list(maskdpo.annotate_responses([{"id": "q"}], RESPONSES, judge="lexical")), "of the type dict"),
        (lambda: list(maskdpo.annotate_responses(PROMPTS, RESPONSES * 2, judge="lexical")), "duplicate id 'q-0'"),
        (lambda: maskdpo.build_pairs(ANNOTATIONS, PROMPTS), "of the type Annotation; records of the type Prompt are"),
        (lambda: maskdpo.train_model(PROMPTS, "m", model="m"), "records of the type Pair are needed"),
        (lambda: maskdpo.write_records("mixed.jsonl", [*PROMPTS, *RESPONSES]), "record 1 is of the type Response"),
        (lambda: maskdpo.evaluate_annotations(ANNOTATIONS, gold=PROMPTS), "records of the type Annotation are needed"),
        (
            lambda: list(maskdpo.annotate_responses(PROMPTS, RESPONSES, judge="lexical", retry_failed=True)),
            "`retry_failed` and `restart` go with `out`",
        ),
    ],
)
def test_records_of_another_kind_are_refused(
    call: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        call()
    assert list(tmp_path.iterdir()) == []


def test_records_in_memory_are_kept_beside_the_output_and_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    for _ in range(2):  # the second call finds nothing left to do
        stats = maskdpo.annotate_responses(iter(PROMPTS), iter(RESPONSES), judge="lexical", out=out)
        assert stats.responses == 2
    kept = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(list(maskdpo.read_records(f"{out}.responses.jsonl", Response))) == 2
    with pytest.raises(UserError, match=r"a\.jsonl\.responses\.jsonl: holds the other records of an earlier run"):
        maskdpo.annotate_responses(PROMPTS, RESPONSES[:1], judge="lexical", out=out)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == kept
    (tmp_path / "m.pairs.jsonl").write_text("mine\n")
    pair = maskdpo.build_pairs(PROMPTS, ANNOTATIONS, test_size=0).train
    with pytest.raises(UserError, match="holds the other records"):
        maskdpo.train_model(pair, tmp_path / "m", model="smollm2")
    assert (tmp_path / "m.pairs.jsonl").read_text() == "mine\n"
