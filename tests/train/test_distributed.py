"""Many ranks: the same run as one, whatever each of them has to do, and one voice when it fails."""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attempts import attempts, interrupted
from safetensors.torch import load_file
from test_run import RIGHT, WRONG, cache_folder, config_for, metrics_of
from train_helpers import make_pair, random_model, random_pair, steep_model

from maskdpo.io import write_records
from maskdpo.models import load_tokenizer
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import parts, passes
from maskdpo.train.ranks import ALONE, Ranks

pytestmark = pytest.mark.slow

__all__ = ["cache_folder"]

STEPS = 6


@pytest.fixture(scope="module")
def uneven_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pairs of different lengths, of which different shares have weight."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    pairs = []
    for i in range(7):
        right, wrong = [(" It has a river.", RIGHT)] * (i % 3 + 1), [(" It has no river.", WRONG)] * (i % 2 + 1)
        pairs.append(make_pair(right + wrong[:1], wrong + right[: i % 2], id=f"p{i}", prompt="Tell me " * (i + 1)))
    write_records(file, pairs)
    return file


@dataclass(frozen=True)
class Outcome:
    """Of all runs of a job list."""

    folder: Path
    codes: dict[str, list[list[int]]]
    said: str

    def losses(self, name: str) -> list[float]:
        return [row["loss"] for row in metrics_of(self.folder / name)]

    def weights_differ(self, name: str, other: str) -> float:
        ours, theirs = (load_file(self.folder / run / "model.safetensors") for run in (name, other))
        assert ours.keys() == theirs.keys()
        return max((ours[key] - theirs[key]).abs().max().item() for key in ours)


@pytest.fixture(scope="module")
def runs(tiny_model: str, uneven_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """All runs of this module, one after the other in processes forked from one: importing takes longest."""
    folder = tmp_path_factory.mktemp("runs")
    gpt2 = str(tmp_path_factory.mktemp("gpt2"))
    tokenizer = load_tokenizer(tiny_model)
    random_model("gpt2", vocab=len(tokenizer)).save_pretrained(gpt2)
    tokenizer.save_pretrained(gpt2)
    # A small budget: three passes on one rank, a different number on each of two; 7 pairs in batches of 3 leave 1.
    small = {"tokens_per_batch": 60}
    bfloat16: dict[str, Any] = {"dtype": "bfloat16"}
    lora = {"lora_r": 4, "lora_alpha": 16, "lr": 3e-3}
    low_bits = {"optim": "adamw8bit", "weights": "bfloat16"}
    jobs: list[dict[str, Any]] = [
        {"name": "one"},
        {"name": "one-low", "config": low_bits},
        {"name": "two-low", "ranks": 2, "config": low_bits | small},
        {"name": "two-one-low", "ranks": 2, "config": low_bits, "rank": 1, "plan": ["after-step", 4, "SIGINT"]},
        {"name": "two-one-low", "config": low_bits},
        {"name": "two", "ranks": 2, "config": small, "use_cache": False},
        {"name": "three", "ranks": 3, "config": {"gradient_checkpointing": True}},
        {"name": "one-bf16", "config": bfloat16},
        {"name": "two-bf16", "ranks": 2, "config": bfloat16},
        {"name": "one-lora", "config": lora},
        {"name": "two-lora", "ranks": 2, "config": lora},
        {"name": "one-gpt2", "config": {"model": gpt2}},
        {"name": "two-gpt2", "ranks": 2, "config": {"model": gpt2, "gradient_checkpointing": True}},
        {"name": "one-ref", "config": {"reference": gpt2}},
        {"name": "two-ref", "ranks": 2, "config": {"reference": gpt2} | small, "use_cache": False},
        {"name": "one-two", "plan": ["after-step", 4, "SIGINT"]},
        {"name": "one-two", "ranks": 2},
        {"name": "two-one", "ranks": 2, "rank": 1, "plan": ["after-step", 4, "SIGINT"]},
        {"name": "two-one"},
        {"name": "full", "ranks": 2, "rank": 1, "plan": ["before-checkpoint", 2, "full"], "save_every": 1},
        {"name": "spoiled", "ranks": 2, "rank": 1, "plan": ["before-step", 2, "spoil"]},
        {"name": "steep", "ranks": 2, "config": {"model": steep_model(tiny_model, folder / "steep-model")}},
        {"name": "bug", "ranks": 2, "rank": 1, "plan": ["before-step", 2, "no such signal"]},
        {"name": "dead", "ranks": 2, "rank": 1, "plan": ["before-step", 2, "SIGKILL"]},
        {"name": "one", "ranks": 2, "config": {"beta": 0.3}},
        {"name": "one", "ranks": 2},
    ]
    for job in jobs:
        job["out"] = str(folder / job["name"])
    config = config_for(tiny_model, max_steps=STEPS, batch_size=3, log_masked_every=2)
    previous = os.environ.get("MASKDPO_CACHE")
    os.environ["MASKDPO_CACHE"] = str(folder / "cache")
    try:
        codes, said = attempts(uneven_pairs, config, jobs)
    finally:
        os.environ.pop("MASKDPO_CACHE")
        if previous:
            os.environ["MASKDPO_CACHE"] = previous
    found: dict[str, list[list[int]]] = {}
    for job, code in zip(jobs, codes, strict=True):
        found.setdefault(job["name"], []).append(code)
    return Outcome(folder, found, said)


@pytest.mark.parametrize("name", ["two", "three"])
def test_many_ranks_do_what_one_does(name: str, runs: Outcome) -> None:
    assert runs.codes[name] == [[0] * (2 if name == "two" else 3)], runs.said
    one, many = (metrics_of(runs.folder / run) for run in ("one", name))
    assert len(one) == len(many) == STEPS
    for ours, theirs in zip(one, many, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if key == "accuracy" and ours["step"] == 1:
                continue  # all rewards are 0 but for rounding
            expected = value if value is None else pytest.approx(value, rel=1e-4, abs=1e-5)
            assert theirs[key] == expected, (ours["step"], key)
    assert runs.losses(name) == pytest.approx(runs.losses("one"), abs=1e-5)
    assert runs.losses("one")[-1] < 0.95 * runs.losses("one")[0]
    assert runs.weights_differ("one", name) < 1e-5


def test_bfloat16_on_two_ranks_is_close_to_one(runs: Outcome) -> None:
    assert runs.codes["two-bf16"] == [[0, 0]], runs.said
    # The loss falls from .69 to .01 in six steps, so rounding grows fast: to .03 from float32 for one rank and for two.
    assert runs.losses("two-bf16")[:2] == pytest.approx(runs.losses("one-bf16")[:2], abs=1e-2)
    for name in ("one-bf16", "two-bf16"):
        assert runs.losses(name) == pytest.approx(runs.losses("one"), abs=5e-2)
    assert runs.losses("two-bf16")[0] == pytest.approx(np.log(2), abs=1e-3), "policy and reference are the same"


def test_an_adapter_on_two_ranks(runs: Outcome) -> None:
    assert runs.codes["two-lora"] == [[0, 0]], runs.said
    assert runs.losses("two-lora") == pytest.approx(runs.losses("one-lora"), abs=1e-5)
    assert runs.weights_differ("one-lora", "two-lora") < 1e-5


def test_weights_in_bfloat16_and_moments_of_8_bits_on_two_ranks(runs: Outcome) -> None:
    """Ranks round with random numbers of their own, so that a weight may end a few steps of bfloat16 away."""
    assert runs.codes["two-low"] == [[0, 0]], runs.said
    assert runs.codes["two-one-low"] == [[2, 2], [0]], runs.said
    for name in ("one-low", "two-low", "two-one-low"):
        assert runs.losses(name)[0] == pytest.approx(np.log(2), abs=1e-6), "policy and reference are the same"
        assert runs.losses(name) == pytest.approx(runs.losses("one"), abs=5e-2)
    tensors = load_file(runs.folder / "two-one-low" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_layers_of_another_name_and_dropout_on_two_ranks(runs: Outcome) -> None:
    """GPT-2 drops a tenth of everything in training mode, and calls its layers ``h``."""
    assert runs.codes["two-gpt2"] == [[0, 0]], runs.said
    assert runs.losses("two-gpt2") == pytest.approx(runs.losses("one-gpt2"), abs=1e-5)
    assert runs.losses("one-gpt2")[-1] < 0.95 * runs.losses("one-gpt2")[0]
    # No bound on the weights: the gradient of a key's bias is 0 but for rounding, which AdamW makes a step of.


def test_a_reference_of_another_architecture_on_two_ranks(runs: Outcome) -> None:
    """Its layers are split too, and let go before the model that trains is split."""
    assert runs.codes["two-ref"] == [[0, 0]], runs.said
    assert runs.losses("two-ref") == pytest.approx(runs.losses("one-ref"), abs=1e-5)
    assert runs.losses("one-ref")[0] != pytest.approx(np.log(2), abs=1e-2)
    assert runs.weights_differ("one-ref", "two-ref") < 1e-5


@pytest.mark.parametrize("name", ["one-two", "two-one"])
def test_a_run_goes_on_with_another_number_of_ranks(name: str, runs: Outcome) -> None:
    first, second = runs.codes[name]
    assert set(first) == {2}, "interrupted"
    assert set(second) == {0}, runs.said
    assert len(first) != len(second)
    assert runs.losses(name) == pytest.approx(runs.losses("one"), abs=1e-5)
    assert runs.weights_differ(name, "one") < 1e-5
    assert runs.said.count(f"resuming from step 4 of {STEPS}") == 3, "each of the three said it once"
    assert runs.said.count("interrupted; step 4 is saved") == 3


def test_an_export_is_the_same_but_for_rounding(runs: Outcome) -> None:
    names = [{file.name for file in (runs.folder / run).iterdir()} for run in ("one", "two")]
    assert names[0] == names[1]
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (runs.folder / "one" / file).read_bytes() == (runs.folder / "two" / file).read_bytes()


def test_one_rank_has_no_room_left(runs: Outcome) -> None:
    assert runs.codes["full"] == [[2, 2]]
    assert [path.name for path in (runs.folder / "full" / "checkpoints").iterdir()] == ["step-00000001"]
    assert runs.said.count("step-00000002: cannot be written") == 1


def test_an_error_on_one_rank_is_said_once_and_ends_all(runs: Outcome) -> None:
    assert runs.codes["spoiled"] == [[2, 2]], runs.said
    assert runs.said.count("the loss is not a finite number for the pairs") == 1
    assert runs.said.count("an earlier run with other settings is recorded here") == 1, "seen by both ranks"
    assert runs.codes["one"][1] == [2, 2]


def test_a_gradient_that_is_not_finite_ends_all_alike(runs: Outcome) -> None:
    assert runs.codes["steep"] == [[2, 2]], runs.said
    (line,) = [line for line in runs.said.split("\n") if "the gradient is not finite" in line]
    assert line.startswith("error: the gradient is not finite (its norm is inf) in the step with the pairs ")
    assert not (runs.folder / "steep" / "model.safetensors").exists()
    assert not (runs.folder / "steep" / "checkpoints").exists()
    assert metrics_of(runs.folder / "steep") == []


def test_a_bug_on_one_rank_keeps_its_traceback_and_no_other(runs: Outcome) -> None:
    assert sorted(runs.codes["bug"][0]) == [1, 2]
    assert runs.said.count("Traceback") == 1, runs.said


def test_a_dead_rank_ends_the_others(runs: Outcome) -> None:
    assert runs.codes["dead"] == [[2, -signal.SIGKILL]], runs.said
    assert runs.said.count("the connection to another process is lost") == 1


def test_a_complete_run_has_nothing_left_to_do_on_any_rank(runs: Outcome) -> None:
    assert runs.codes["one"][2] == [0, 0], runs.said
    assert runs.said.count("this very run is complete") == 1


def test_all_pairs_go_to_one_rank_each_with_about_as_many_tokens() -> None:
    rng = np.random.default_rng(0)
    pairs = [random_pair(rng, f"p{i}") for i in range(40)]
    for size in (1, 2, 3, 7):
        found = parts(pairs, size)
        assert sorted(pair.id for part in found for pair in part) == sorted(pair.id for pair in pairs)
        tokens = [sum(pair.tokens for pair in part) for part in found]
        assert max(tokens) - min(tokens) <= max(pair.tokens for pair in pairs)


@pytest.mark.parametrize("number", [1, 2, 5, 40])
def test_every_rank_makes_as_many_passes_and_every_pair_counts_once(number: int) -> None:
    rng = np.random.default_rng(1)
    pairs = [random_pair(rng, f"p{i}") for i in range(number)]
    for size in (1, 2, 3, 7):
        found = [passes(pairs, 60, "shared", Ranks(rank, size)) for rank in range(size)]
        assert len({len(of_rank) for of_rank in found}) == 1
        counted = [pair.id for of_rank in found for group, counts in of_rank if counts for pair in group]
        assert sorted(counted) == sorted(pair.id for pair in pairs)
    assert all(counts for _, counts in passes(pairs, 60, "shared", ALONE))


def arguments_for(model: str, pairs: Path, out: Path, *more: str) -> list[str]:
    config: TrainConfig = config_for(model)
    return [
        str(pairs), "--out", str(out), "--model", model, "--epochs", "100000",
        "--batch-size", str(config.batch_size), "--dtype", "float32", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_nproc_starts_interrupts_and_goes_on(
    sent: signal.Signals, tiny_model: str, uneven_pairs: Path, tmp_path: Path
) -> None:
    """The signal reaches only the process that was started; its children save, and say so once."""
    out = tmp_path / "out"
    arguments = arguments_for(tiny_model, uneven_pairs, out, "--nproc", "2", "--save-every", "1000000")
    code, errors = interrupted(arguments, out, after_steps=3, signals=[sent])
    assert code == 128 + sent, errors
    steps = len(metrics_of(out))
    assert errors.count(f"step {steps} is saved. Repeat the same command to go on") == 1, errors
    assert "Traceback" not in errors
    assert [file.name for file in (out / "checkpoints").iterdir()] == [f"step-{steps:08d}"]
    record = json.loads((out / "maskdpo_run.json").read_text())
    assert "--nproc 2" in record["command_line"]
