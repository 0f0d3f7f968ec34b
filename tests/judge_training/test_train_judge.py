"""Whole trainings of tiny judges: what they learn, what their folders can do, and what survives a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import exit_code
from judge_data import REFERENCE, SAYS, save_encoder, write_data
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification

import maskdpo
from maskdpo import api
from maskdpo.annotate.sentences import by_classifier
from maskdpo.classifier.spec import read_spec
from maskdpo.errors import InputError, UserError
from maskdpo.identity import fingerprint
from maskdpo.io import read_records
from maskdpo.judge_training import run, step
from maskdpo.judge_training.loop import learning_rate
from maskdpo.judge_training.result import JudgeResult
from maskdpo.judge_training.run import train_judge
from maskdpo.judge_training.settings import TrainJudgeConfig, TrainJudgeSettings
from maskdpo.run_folder import published
from maskdpo.schemas import Annotation, JudgeInfo, Label, Prompt, Response
from maskdpo.settings_reading import load_settings
from maskdpo.verdicts.decision import Calibration, Parameters, read_calibration, refuse_other_judge

RIGHT, WRONG, CONTRA, UNVER, NONE = (
    Label.NO_HALLUCINATION, Label.HALLUCINATION, Label.CONTRADICTORY, Label.UNVERIFIABLE, Label.NO_FACT,
)  # fmt: skip
BOTH = [RIGHT, WRONG]
QUICK = {"lr": 3e-3, "batch_size": 16, "epochs": 6, "heldout": 0.25, "patience": 0, "warmup_ratio": 0.0}


@pytest.fixture(autouse=True)
def no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.node.get_closest_marker("curves"):
        monkeypatch.setattr(run, "draw_curves", lambda file, steps, evals: None)


@pytest.fixture(scope="session")
def encoder(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_encoder(tmp_path_factory.mktemp("encoder"), tiny_model))


def trained(
    model: str, data: tuple[Path, Path] | list[tuple[Path, Path]], out: Path, **settings: Any
) -> JudgeResult | None:
    many = data if isinstance(data, list) else [data]
    given = {"labelled": [file for file, _ in many], "prompts": [file for _, file in many], "out": out, "model": model}
    return train_judge(load_settings(TrainJudgeSettings, given | QUICK | settings), by_classifier)


def judged(judge: Path, tmp_path: Path, sentences: list[str], *more: str) -> list[dict[str, Any]]:
    """The sentences as ``maskdpo annotate`` labels them, one answer each."""
    prompts, responses = tmp_path / "asked.jsonl", tmp_path / "answers.jsonl"
    maskdpo.write_records(prompts, [Prompt(id="p", prompt="What is there?", reference=REFERENCE)])
    maskdpo.write_records(responses, [Response(id=f"r{i}", prompt_id="p", response=s) for i, s in enumerate(sentences)])
    out = tmp_path / "judged.jsonl"
    command("annotate", prompts, responses, "--judge", "classifier", "--model", judge, "--out", out, "--restart", *more)
    return [one.sentences[0].model_dump() for one in read_records(out, Annotation)]


def command(*arguments: object) -> None:
    assert exit_code(*arguments) == 0


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.curves
def test_a_language_model_becomes_a_judge_that_annotate_takes_as_it_is(
    tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = write_data(tmp_path, BOTH, 20, name="gold", topics=2)
    result = trained(
        tiny_model, write_data(tmp_path, BOTH), tmp_path / "judge", eval_file=gold[0], eval_prompts=gold[1],
        licence_notes=["The labels are CC BY 4.0."],
    )  # fmt: skip
    assert result is not None
    assert result.classes == tuple(BOTH)
    assert result.held_out is not None
    assert result.held_out.before["auroc"].value > 0.95
    assert result.gold is not None
    assert result.gold.after is not None
    assert result.gold.after["balanced_accuracy"].value == 1.0
    first, *_, last = (row["loss"] for row in rows_of(tmp_path / "judge" / "metrics.jsonl"))
    assert last < first / 2

    spec = read_spec(tmp_path / "judge" / "classifier.yaml")
    assert spec.head == "likelihood"
    assert spec.input.chat
    assert spec.input.text.endswith("Answer with yes or no.")
    calibration = tmp_path / "judge" / "calibration.json"
    found = judged(
        tmp_path / "judge", tmp_path, [f"{SAYS[RIGHT]} 997.", f"{SAYS[WRONG]} 998."], "--calibration", str(calibration)
    )
    assert [one["label"] for one in found] == BOTH
    assert found[0]["scores"][RIGHT] > found[1]["scores"][RIGHT]
    assert read_calibration(calibration).gold_sentences == 24

    card = (tmp_path / "judge" / "README.md").read_text()
    assert "The labels are CC BY 4.0." in card
    assert "Agreement with `gold.jsonl`" in card
    assert "of these topics were trained on, or held out" in card
    assert "2 of its topics are among the labelled ones too" in capsys.readouterr().err
    assert "hf download USER/judge --local-dir judge" in card
    assert "is fitted to those with labels of people" in card
    assert str(tmp_path) not in card
    assert (tmp_path / "judge" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "judge" / "checkpoints").exists()
    sent = published(tmp_path / "judge")
    assert {"model.safetensors", "classifier.yaml", "calibration.json", "README.md", "train.yaml"} <= sent.keys()
    assert "maskdpo_run.json" not in sent
    texts = [one if isinstance(one, bytes) else one.read_bytes() for one in sent.values()]
    assert not any(str(tmp_path).encode() in text or tiny_model.encode() in text for text in texts)
    command("report", tmp_path / "judge", "--out", tmp_path / "page.html")
    assert b"loss" in (tmp_path / "page.html").read_bytes()


def test_a_judge_out_of_the_hub_has_the_files_that_its_calibration_names(tiny_model: str, tmp_path: Path) -> None:
    folder, copy = Path(shutil.copytree(tiny_model, tmp_path / "judge")), tmp_path / "copy"
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    (folder / "train.yaml").write_text(f"model: {tiny_model}\n")
    info = JudgeInfo(name="classifier", model=str(folder), revision=fingerprint(str(folder)))
    calibration = Calibration(judge=info, aim="balanced", parameters=Parameters())
    (folder / "calibration.json").write_text(calibration.model_dump_json())
    for name, content in published(folder).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    here = info.model_copy(update={"model": str(copy), "revision": fingerprint(str(copy))})
    found = read_calibration(copy / "calibration.json")
    assert found.judge.model == "judge"
    refuse_other_judge(found, here)


@pytest.mark.slow
def test_an_encoder_gets_a_head_for_what_the_data_has(encoder: str, tmp_path: Path) -> None:
    data = write_data(tmp_path, [RIGHT, CONTRA, UNVER, NONE], 128)
    result = trained(encoder, data, tmp_path / "judge", epochs=12)
    assert result is not None
    assert result.classes == (RIGHT, CONTRA, UNVER, NONE)
    config = AutoConfig.from_pretrained(tmp_path / "judge")
    assert list(config.id2label.values()) == [label.value for label in result.classes]
    found = judged(tmp_path / "judge", tmp_path, [f"{SAYS[label]} 99." for label in (RIGHT, CONTRA, UNVER, NONE)])
    assert [one["label"] for one in found] == [RIGHT, CONTRA, UNVER, NONE]
    assert read_spec(tmp_path / "judge" / "classifier.yaml").head == "sequence-classification"


@pytest.mark.slow
def test_rows_that_only_say_wrong_train_the_sum_of_the_wrong_labels(encoder: str, tmp_path: Path) -> None:
    fine = write_data(tmp_path, [RIGHT, CONTRA, UNVER, RIGHT], 64, name="fine")
    coarse = write_data(tmp_path, [RIGHT, WRONG], 64, name="coarse")
    result = trained(encoder, [fine, coarse], tmp_path / "judge", epochs=10)
    assert result is not None
    assert result.classes == (RIGHT, CONTRA, UNVER)
    # "wrong" rows say the same text as the contradictory ones, and leave the kind to these
    found = judged(tmp_path / "judge", tmp_path, [f"{SAYS[label]} 99." for label in (RIGHT, WRONG)])
    assert [one["label"] for one in found] == [RIGHT, CONTRA]


@pytest.mark.slow
def test_the_probabilities_of_a_judge_are_learnt_as_they_are(encoder: str, tmp_path: Path) -> None:
    scores = {RIGHT: {RIGHT: 0.7, WRONG: 0.3}, WRONG: {RIGHT: 0.1, WRONG: 0.9}}
    data = write_data(tmp_path, BOTH, 128, scores=scores)
    sentences = [f"{SAYS[label]} 99." for label in BOTH]
    trained(encoder, data, tmp_path / "soft", epochs=12)
    soft = [one["scores"][RIGHT] for one in judged(tmp_path / "soft", tmp_path, sentences)]
    assert soft == pytest.approx([0.7, 0.1], abs=0.08)
    trained(encoder, data, tmp_path / "hard", epochs=12, soft=False)
    hard = [one["scores"][RIGHT] for one in judged(tmp_path / "hard", tmp_path, sentences)]
    assert hard[0] > 0.9
    assert hard[1] < 0.1


@pytest.mark.slow
def test_the_weight_of_a_file_decides_where_files_disagree(encoder: str, tmp_path: Path) -> None:
    told = write_data(tmp_path, BOTH, 64, name="told")
    lies = tmp_path / "lies.jsonl"
    swapped = {RIGHT: WRONG, WRONG: RIGHT}
    maskdpo.write_records(lies, (
        one.model_copy(update={"sentences": [s.model_copy(update={"label": swapped[s.label]}) for s in one.sentences]})
        for one in read_records(told[0], Annotation)
    ))  # fmt: skip
    both = [told, (lies, told[1])]
    shares = {}
    for name, weights in (("told", (4.0, 1.0)), ("lies", (1.0, 4.0))):
        trained(encoder, both, tmp_path / name, weights=weights, epochs=8, heldout=0)
        shares[name] = judged(tmp_path / name, tmp_path, [f"{SAYS[RIGHT]} 99."])[0]["scores"][RIGHT]
    assert shares["told"] == pytest.approx(0.8, abs=0.1)
    assert shares["lies"] == pytest.approx(0.2, abs=0.1)


@pytest.mark.slow
def test_lora_is_merged_into_a_plain_model(tiny_model: str, tmp_path: Path) -> None:
    result = trained(tiny_model, write_data(tmp_path, BOTH), tmp_path / "judge", lora_r=8, lr=2e-2)
    assert result is not None
    names = {file.name for file in (tmp_path / "judge").iterdir()}
    assert "model.safetensors" in names
    assert not any("adapter" in name for name in names)
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (tiny_model, tmp_path / "judge"))
    assert not any("lora" in name for name in after)
    changed = {name for name in before if name in after and not before[name].equal(after[name])}
    assert "model.layers.0.self_attn.q_proj.weight" in changed
    assert not any("embed" in name or "norm" in name for name in changed)
    found = judged(tmp_path / "judge", tmp_path, [f"{SAYS[label]} 99." for label in BOTH])
    assert [one["label"] for one in found] == BOTH


def test_only_the_last_layers_train_where_that_is_asked_for(encoder: str, tmp_path: Path) -> None:
    trained(encoder, write_data(tmp_path, BOTH, 32), tmp_path / "judge", last_layers=1, epochs=1)
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (encoder, tmp_path / "judge"))
    changed = {n for n in before if not before[n].equal(after[f"bert.{n}"])}
    assert any(name.startswith("encoder.layer.1.") for name in changed)
    assert not any(name.startswith(("embeddings.", "encoder.layer.0.")) for name in changed)


@pytest.mark.slow
def test_a_judge_is_trained_on_with_its_own_spec(encoder: str, tmp_path: Path) -> None:
    data = write_data(tmp_path, BOTH, 32)
    trained(encoder, data, tmp_path / "first", epochs=1, passage_words=77)
    result = trained(str(tmp_path / "first"), data, tmp_path / "second")
    assert result is not None
    spec = read_spec(tmp_path / "second" / "classifier.yaml")
    assert spec.chunk is not None
    assert spec.chunk.size == 77
    assert rows_of(tmp_path / "second" / "eval.jsonl")[-1]["auroc"] > 0.95
    with pytest.raises(UserError, match="is a judge already and keeps its labels; leave `classes` at auto"):
        trained(str(tmp_path / "first"), data, tmp_path / "third", classes="three")


def test_a_head_for_other_labels_is_not_taken_over(encoder: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    sentiment = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)
    torch.nn.init.constant_(sentiment.classifier.weight, 3.0)
    shutil.copytree(encoder, tmp_path / "sentiment")
    sentiment.save_pretrained(tmp_path / "sentiment")
    trained(str(tmp_path / "sentiment"), write_data(tmp_path, BOTH, 32), tmp_path / "judge", epochs=1, lr=1e-6)
    assert weights(tmp_path / "judge")["classifier.weight"].abs().max() < 1


def test_training_stops_early_and_keeps_the_best_weights(encoder: str, tmp_path: Path) -> None:
    data = write_data(tmp_path, BOTH, 64)
    settings: dict[str, Any] = {"patience": 2, "eval_every": 1, "lr": 1.0, "epochs": 40}  # so large that it gets worse
    result = trained(encoder, data, tmp_path / "judge", **settings)
    assert result is not None
    evals = rows_of(tmp_path / "judge" / "eval.jsonl")
    best = min(evals, key=lambda row: row["loss"])
    assert result.best == best["step"]
    assert result.steps == best["step"] + 2 < result.total
    record = json.loads((tmp_path / "judge" / "maskdpo_run.json").read_text())
    assert record["counts"]["steps"] == result.steps


def test_augmented_sentences_are_counted_and_said_in_the_card(encoder: str, tmp_path: Path) -> None:
    prompts, annotations = [], []
    for i in range(40):
        text = "The mill was built in 1834." if i % 2 == 0 else "Zebras quack."
        reference = "The mill was built in 1834. The bridge was opened in 1790."
        prompts.append({"id": f"p{i}", "prompt": "?", "reference": reference, "topic": f"t{i // 2 % 10}"})
        label = "no_hallucination" if i % 2 == 0 else "hallucination"
        sentences = [{"start": 0, "end": len(text), "label": label}]
        annotations.append({"id": f"a{i}", "prompt_id": f"p{i}", "response": text, "sentences": sentences})
    files = tmp_path / "a.jsonl", tmp_path / "p.jsonl"
    for file, rows in zip(files, (annotations, prompts), strict=True):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = trained(encoder, files, tmp_path / "judge", augment=1.0, epochs=1, heldout=0.2)
    assert result is not None
    assert result.data.changed == 16  # of 20 right sentences a fifth is held out
    assert result.data.rows == 48
    assert result.data.held_out == 8
    assert "**Augmented:** 16 of the sentences" in (tmp_path / "judge" / "README.md").read_text()


def weights(judge: Path) -> dict[str, Any]:
    return load_file(judge / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


class Killed(BaseException):
    """As abrupt as a kill: no code of the run handles it."""


@pytest.mark.parametrize(
    "killed_at", [1, 4, pytest.param(7, marks=pytest.mark.slow), pytest.param(11, marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_to_the_very_same_weights(
    killed_at: int, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data(tmp_path, BOTH, 64)
    settings: dict[str, Any] = {"save_every": 3, "eval_every": 2, "epochs": 4, "batch_size": 16}
    whole = trained(encoder, data, tmp_path / "whole", **settings)
    assert whole is not None
    real = step.Trainer.step

    def dies(self: step.Trainer, rows: Any, number: int, lr: float) -> tuple[float, float]:
        if number == killed_at:
            raise Killed
        return real(self, rows, number, lr)

    with monkeypatch.context() as patch:
        patch.setattr(step.Trainer, "step", dies)
        with pytest.raises(Killed):
            trained(encoder, data, tmp_path / "killed", **settings)
    again = trained(encoder, data, tmp_path / "killed", **settings)
    assert again is not None
    assert same(tmp_path / "whole", tmp_path / "killed")
    assert again.best == whole.best
    for name in ("eval.jsonl", "metrics.jsonl"):
        one, other = (
            [
                {k: v for k, v in row.items() if "_s" not in k and k != "seconds"}
                for row in rows_of(tmp_path / of / name)
            ]
            for of in ("whole", "killed")
        )
        assert one == other
    assert trained(encoder, data, tmp_path / "killed", **settings) is None  # complete
    with pytest.raises(UserError, match=r"an earlier run with other settings.*epochs: 4 -> 5"):
        trained(encoder, data, tmp_path / "killed", **settings | {"epochs": 5})


KILL = """
import os, signal, sys
from maskdpo.judge_training import step
real, count = step.Trainer.step, [0]
def dies(self, *args):
    count[0] += 1
    if count[0] == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *args)
step.Trainer.step = dies
from maskdpo.cli import main
sys.argv = ["maskdpo", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
def test_kill_9_on_the_command_line(tiny_model: str, tmp_path: Path) -> None:
    labelled, prompts = write_data(tmp_path, BOTH, 64)
    words = ["train-judge", str(labelled), "--prompts", str(prompts), "--model", tiny_model, "--save-every", "3"]
    words += ["--epochs", "4", "--batch-size", "16", "--lr", "1e-3", "--lora-r", "4", "--lora-dropout", "0.1"]
    killed = subprocess.run(
        [sys.executable, "-c", KILL, *words, "--out", str(tmp_path / "killed")],
        check=False, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path(maskdpo.__file__).parents[1])},
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "killed" / "checkpoints").glob("step-*")] == ["step-00000006"]
    command(*words, "--out", tmp_path / "killed")
    command(*words, "--out", tmp_path / "whole")
    assert same(tmp_path / "whole", tmp_path / "killed")


def test_settings_come_from_a_file_and_are_written_for_the_next_run(encoder: str, tmp_path: Path) -> None:
    labelled, prompts = write_data(tmp_path, BOTH, 32)
    (tmp_path / "judge.yaml").write_text(
        f"prompts: {prompts}\nmodel: {encoder}\nepochs: 1\nweight: [2]\nheldout: 0.25\n"
    )
    command("train-judge", labelled, "--config", tmp_path / "judge.yaml", "--out", tmp_path / "judge")
    written = yaml.safe_load((tmp_path / "judge" / "train.yaml").read_text())
    assert (written["epochs"], written["weights"], written["model"]) == (1, [2.0], encoder)
    load_settings(TrainJudgeConfig, {}, tmp_path / "judge" / "train.yaml")


def test_the_python_function_takes_records(encoder: str, tmp_path: Path) -> None:
    labelled, prompts = write_data(tmp_path, BOTH, 32)
    records = list(read_records(labelled, Annotation)), list(read_records(prompts, Prompt))
    result = api.train_judge(*records, tmp_path / "judge", model=encoder, epochs=1, heldout=0.25)
    assert result is not None
    assert result.data.rows + result.data.held_out == 32
    assert (tmp_path / "judge.labelled.jsonl").exists()
    again = api.train_judge([labelled], [prompts], tmp_path / "other", model=encoder, epochs=1, heldout=0.25)
    assert again is not None
    assert same(tmp_path / "judge", tmp_path / "other")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (1, 2)}, "`weights`: 2 for 1 files; give one for each"),
        ({"lora_alpha": 8}, "`lora_alpha` goes with `lora_r`"),
        ({"eval_prompts": "x.jsonl"}, "`eval_prompts` goes with `eval_file`"),
        ({"classes": "three"}, "no sentence has the label no_fact"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"max_length": 32}, "no sentence is left to train on: .* too long for `max_length`"),
        ({"model": "./nowhere"}, "no such model folder"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    settings: dict[str, Any], message: str, tiny_model: str, tmp_path: Path
) -> None:
    labelled, prompts = write_data(tmp_path, BOTH, 16)
    given = {"labelled": labelled, "prompts": prompts, "out": tmp_path / "judge", "model": tiny_model}
    with pytest.raises(UserError, match=message):
        train_judge(load_settings(TrainJudgeSettings, given | settings), by_classifier)


def test_a_base_without_a_tokenizer_is_refused(encoder: str, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(Path(encoder) / name, bare / name)
    with pytest.raises(UserError, match="has no tokenizer, or one to which every word is unknown"):
        trained(str(bare), write_data(tmp_path, BOTH, 16), tmp_path / "judge")


def test_a_folder_of_other_things_is_not_written_to(encoder: str, tmp_path: Path) -> None:
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "thesis.txt").write_text("")
    with pytest.raises(InputError, match="holds no maskdpo run"):
        trained(encoder, write_data(tmp_path, BOTH, 16), tmp_path / "judge")


def test_the_learning_rate_rises_and_falls() -> None:
    linear, cosine = (
        TrainJudgeConfig(model="x", lr=1.0, warmup_ratio=0.2, schedule=schedule) for schedule in ("linear", "cosine")
    )
    assert [learning_rate(i, 10, linear) for i in (0, 1, 2, 6)] == [0.5, 1.0, 1.0, 0.5]
    assert learning_rate(6, 10, cosine) == pytest.approx(0.5)
    assert learning_rate(9, 10, cosine) < learning_rate(9, 10, linear)
    assert (TrainJudgeConfig(model="x").peak_lr, TrainJudgeConfig(model="x", lora_r=8).peak_lr) == (2e-5, 2e-4)
