"""Held-out pairs: what is measured of them, which weights are kept, what is shown, what a resumed run does."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_run import RIGHT, WRONG, cache_folder, config_for, metrics_of, said
from train_helpers import die_in_step, killed_in_step, make_pair

from maskdpo import run_folder
from maskdpo.errors import UserError
from maskdpo.io import write_records
from maskdpo.schemas.training import EvalStats
from maskdpo.train.run import record, reference
from maskdpo.train.run.record import Recorder
from maskdpo.train.run.train import TrainResult, train
from maskdpo.train.settings import RunOptions
from maskdpo.train.step import Trainer

pytestmark = pytest.mark.slow

__all__ = ["cache_folder"]  # a fixture that every test here uses


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pairs to train on, and held-out ones that have the same ids and say the opposite: their loss rises."""
    folder = tmp_path_factory.mktemp("heldout")
    right, wrong = [("Yes it does.", RIGHT), (" So?", WRONG)], [("No it never.", WRONG), (" Yes.", RIGHT)]
    write_records(folder / "pairs.jsonl", [make_pair(right, wrong, id=f"{i}", prompt=f"Is {i} so?") for i in range(4)])
    opposite = [(wrong[0][0], RIGHT)], [(right[0][0], WRONG)]
    write_records(
        folder / "eval.jsonl", [make_pair(*opposite, id=f"{i}", prompt=f"Is {i % 2} there?") for i in range(4)]
    )
    return folder / "pairs.jsonl", folder / "eval.jsonl"


def run(
    model: str, files: tuple[Path, Path], out: Path, *, options: dict[str, Any] | None = None, **settings: Any
) -> Any:
    config = config_for(model, **{"max_steps": 6, "eval_every": 2, "batch_size": 4} | settings)
    return train(files[0], out, config, RunOptions(**{"eval_file": files[1], "save_every": 2} | (options or {})))


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def letters(text: str) -> str:
    """Without white space and control characters, which a console leaves out."""
    return "".join(letter for letter in text if letter.isprintable() and not letter.isspace())


@pytest.mark.curves
def test_a_look_before_during_and_after(tiny_model: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(tiny_model, files, tmp_path / "out", max_steps=5)
    rows = rows_of(tmp_path / "out" / "eval.jsonl")
    assert result.evals == rows
    assert [row["step"] for row in rows] == [0, 2, 4, 5]
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
    assert rows[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert rows[-1]["loss"] > rows[0]["loss"] + 0.01  # these pairs say the opposite
    assert rows[-1]["margin"] < 0 == rows[-1]["accuracy"]
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_held_out_training_pairs_give_the_loss_of_the_next_step(
    tiny_model: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    run(tiny_model, (files[0], files[0]), tmp_path / "out", eval_every=1)
    steps, evals = metrics_of(tmp_path / "out"), rows_of(tmp_path / "out" / "eval.jsonl")
    for name in ("loss", "margin", "logps_chosen", "reward_rejected"):
        assert [row[name] for row in evals[:-1]] == pytest.approx([row[name] for row in steps], abs=1e-4)


@pytest.mark.parametrize("settings", [{}, {"loss": "simpo", "beta": 2.0}, {"lora_r": 4, "lora_dropout": 0.5}])
def test_looking_changes_nothing(
    settings: dict[str, Any], tiny_model: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    run(tiny_model, files, tmp_path / "with", options={"show_answers": 2}, eval_every=1, **settings)
    train(files[0], tmp_path / "without", config_for(tiny_model, max_steps=6, batch_size=4, **settings))
    assert metrics_of(tmp_path / "with") == metrics_of(tmp_path / "without")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("with", "without")]
    assert weights[0] == weights[1]


def test_the_best_weights_are_written(
    tiny_model: str, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loss on these pairs rises from step to step, so the first trained weights are the best."""
    best = run(tiny_model, files, tmp_path / "best", keep_best=True, eval_every=1, warmup_ratio=0.0)
    assert best.best == 1
    text = said(capsys)
    assert "writing the weights of step 1, which have the lowest loss" in text
    assert "before training it was lower: 0.6931" in text
    last = run(tiny_model, files, tmp_path / "last", eval_every=1, warmup_ratio=0.0)
    assert last.best is None
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("best", "last")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    again = train(files[0], tmp_path / "one", config_for(tiny_model, max_steps=6, batch_size=4, warmup_ratio=0.0))
    assert again
    card = (tmp_path / "best" / "README.md").read_text()
    assert "These are the weights of step 1" in card
    assert "These are the weights" not in (tmp_path / "last" / "README.md").read_text()
    assert not (tmp_path / "best" / "checkpoints").exists()


def keep_weights(seen: list[dict[str, torch.Tensor]], patch: pytest.MonkeyPatch) -> None:
    """A copy of the weights after every step."""
    step = Trainer.step

    def spy(self: Trainer, *args: Any) -> Any:
        done = step(self, *args)
        seen.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        return done

    patch.setattr(Trainer, "step", spy)


def test_the_best_weights_are_those_of_their_step(
    tiny_model: str, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    keep_weights(seen, monkeypatch)
    result = run(tiny_model, files, tmp_path / "out", keep_best=True, eval_every=2)
    assert result.best == 2
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in written.items())
    assert any(not torch.equal(tensor, seen[5][name]) for name, tensor in written.items())


@pytest.mark.parametrize("die_at", [2, 4, 6])
def test_a_resumed_run_has_looked_as_the_whole_one(
    die_at: int, tiny_model: str, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"keep_best": True, "eval_every": 1, "options": {"show_answers": 1}}
    train_on = (files[0], files[0])  # the loss falls, so there is a new best at every look
    run(tiny_model, train_on, tmp_path / "whole", **settings)
    with killed_in_step(die_at, monkeypatch):
        run(tiny_model, train_on, tmp_path / "killed", **settings)
    result: TrainResult = run(tiny_model, train_on, tmp_path / "killed", **settings)
    assert result.best == 6
    for name in ("eval.jsonl", "answers.jsonl", "model.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_answers_are_shown_and_kept(
    tiny_model: str, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run(tiny_model, files, tmp_path / "out", options={"show_answers": 3}, gradient_checkpointing=True)
    rows = rows_of(tmp_path / "out" / "answers.jsonl")
    assert [(row["step"], row["id"]) for row in rows] == [(step, i) for step in (0, 2, 4, 6) for i in ("0", "1")]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for row in (rows[0], rows[-1]):
        model = AutoModelForCausalLM.from_pretrained(tiny_model if row["step"] == 0 else tmp_path / "out")
        ids = tokenizer(row["prompt"], add_special_tokens=False, return_tensors="pt").input_ids
        found = model.generate(ids, max_new_tokens=64, do_sample=False)[0, ids.shape[1] :]
        assert row["answer"] == tokenizer.decode(found, skip_special_tokens=True)
    assert "Is 0 there?" in rows[0]["prompt"]
    text = letters(said(capsys))
    assert all(letters(f"{row['id']}: {row['answer']}") in text for row in rows)


def test_its_reference_is_kept_too(
    tiny_model: str, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    compute = reference.compute_reference
    monkeypatch.setattr(reference, "compute_reference", lambda *given: (calls.append(1), compute(*given))[1])
    run(tiny_model, files, tmp_path / "1")
    assert len(calls) == 2
    run(tiny_model, files, tmp_path / "2", lr=1e-4)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"keep_best": True}, RunOptions(), "`keep_best` needs held-out pairs: `eval_file` PAIRS"),
        ({}, RunOptions(show_answers=2), "`show_answers` needs held-out pairs: `eval_file` PAIRS"),
        ({}, RunOptions(eval_file=Path("nowhere.jsonl")), "nowhere.jsonl: no such file"),
    ],
)
def test_what_lacks_its_pairs_is_refused_and_nothing_is_written(
    settings: Any, options: RunOptions, message: str, tiny_model: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        train(files[0], tmp_path / "out", config_for(tiny_model, **settings), options)
    assert str(error.value) == message
    assert not (tmp_path / "out").exists()


def test_other_held_out_pairs_do_not_continue_a_run(tiny_model: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    run(tiny_model, files, tmp_path / "out", max_steps=1)
    with pytest.raises(UserError, match="the eval file has changed"):
        run(tiny_model, (files[0], files[0]), tmp_path / "out", max_steps=1)


def killed_at(place: str, step: int, patch: pytest.MonkeyPatch) -> None:
    """Die before a step begins, or before the row of a look is written, when the weights are kept already."""
    if place == "step":
        die_in_step(step, patch)
        return
    write = Recorder._write

    def die_writing(self: Recorder, name: str, row: Any) -> None:
        if name == "eval.jsonl" and row["step"] == step:
            raise RuntimeError("killed")
        write(self, name, row)

    patch.setattr(Recorder, "_write", die_writing)


@pytest.mark.parametrize("place", ["step", "row"])
def test_what_was_best_at_the_checkpoint_survives_though_better_weights_came_after(
    place: str, tiny_model: str, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 3 to 5 are better than 2, but behind the checkpoint; done again, as with other rounding, they are worse."""
    train_on, out = (files[0], files[0]), tmp_path / "out"
    settings: dict[str, Any] = {"keep_best": True, "eval_every": 1}
    seen: list[dict[str, torch.Tensor]] = []
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        keep_weights(seen, patch)
        killed_at(place, 4, patch)
        run(tiny_model, train_on, out, **settings)
    assert [path.name for path in (out / "checkpoints").glob("step-*")] == ["step-00000002"]
    real = record.evaluate

    def worse(*args: Any) -> EvalStats:
        stats = real(*args)
        return stats.model_copy(update={"loss": stats.loss + 9})

    monkeypatch.setattr(record, "evaluate", worse)
    assert run(tiny_model, train_on, out, **settings).best == 2
    losses = {row["step"]: row["loss"] for row in rows_of(out / "eval.jsonl")}
    assert min(losses, key=losses.__getitem__) == 2
    written = load_file(out / "model.safetensors")
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in written.items())
    assert any(not torch.equal(tensor, seen[2][name]) for name, tensor in written.items())
    assert "These are the weights of step 2" in (out / "README.md").read_text()


def test_kept_weights_without_the_row_of_their_look_do_not_count(
    tiny_model: str, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a power cut may leave them, which keeps what was synced and loses a line that was not."""
    train_on, out = (files[0], files[0]), tmp_path / "out"
    settings: dict[str, Any] = {"keep_best": True, "eval_every": 2}
    run(tiny_model, train_on, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        killed_at("step", 5, patch)
        run(tiny_model, train_on, out, **settings)
    rows = (out / "eval.jsonl").read_bytes().split(b"\n")
    assert len(rows) == 4
    (out / "eval.jsonl").write_bytes(b"\n".join(rows[:2]) + b"\n" + rows[2][:9])
    assert run(tiny_model, train_on, out, **settings).best == 6
    for name in ("eval.jsonl", "model.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_no_more_weights_are_kept_than_a_resumed_run_may_need(
    tiny_model: str, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, train_on = tmp_path / "out", (files[0], files[0])  # better at every look, checkpoints at 2, 4, 6
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        killed_at("step", 8, patch)
        run(tiny_model, train_on, out, keep_best=True, eval_every=1, max_steps=9)
    assert sorted(path.name for path in (out / "checkpoints" / "best").iterdir()) == [
        "step-00000004", "step-00000006", "step-00000007",
    ]  # fmt: skip


def test_lost_weights_are_not_claimed(
    tiny_model: str,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run of a maskdpo that kept only the newest, or somebody has removed them."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        killed_at("step", 3, patch)
        run(tiny_model, files, out, keep_best=True, eval_every=1, warmup_ratio=0.0)
    shutil.rmtree(out / "checkpoints" / "best")
    assert run(tiny_model, files, out, keep_best=True, eval_every=1, warmup_ratio=0.0).best == 3
    assert "the weights of step 1, the best so far, are gone" in said(capsys)


def test_rows_end_at_a_newline_only(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    rows = [{"step": i, "answer": "one\u2028two\u2029three\x85four\x1cfive\rsix\nseven"} for i in (1, 2, 3)]
    lines = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]
    file.write_bytes(b"".join(lines) + '{"step": 4, "answer": "é'.encode()[:-1])
    assert run_folder.read_rows(file) == rows
    run_folder.keep_rows(file, 2)
    assert file.read_bytes() == b"".join(lines[:2])
