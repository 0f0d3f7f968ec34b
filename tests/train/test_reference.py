"""A reference that is another model than the one that trains: its log-probs, its record, what it refuses."""

import json
import math
import shutil
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from test_run import cache_folder, config_for, metrics_of, pairs_file
from train_helpers import random_model
from transformers import AutoModelForCausalLM

from maskdpo.errors import UserError
from maskdpo.models import load_tokenizer
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encoded_pair import EncodedPair, EncodedSide
from maskdpo.train.model.memory import memory_parts, sizes_of
from maskdpo.train.run import reference
from maskdpo.train.run import train as run
from maskdpo.train.run.dry_run import plan_run
from maskdpo.train.run.train import train
from maskdpo.train.settings import RunOptions
from maskdpo.train.step import Trainer

pytestmark = pytest.mark.slow

__all__ = ["cache_folder", "pairs_file"]  # fixtures

Seen = list[tuple[Trainer, list[EncodedPair]]]


@pytest.fixture(scope="session")
def other_model(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Other weights, more layers, the same tokenizer."""
    folder = tmp_path_factory.mktemp("other-model")
    tokenizer = load_tokenizer(tiny_model)
    random_model(vocab=len(tokenizer), seed=7, num_hidden_layers=3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The trainer and the pairs of every step."""
    found: Seen = []
    step = Trainer.step

    def spy(self: Trainer, pairs: list[EncodedPair], *given: Any) -> Any:
        found.append((self, pairs))
        return step(self, pairs, *given)

    monkeypatch.setattr(Trainer, "step", spy)
    return found


@cache
def loaded(model: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)


def logps_of(model: str, pair: EncodedPair, side: EncodedSide) -> torch.Tensor:
    """[T] log-probs of an answer, by transformers alone."""
    ids = torch.tensor([*pair.prompt_ids, *side.ids])
    with torch.no_grad():
        logits = loaded(model)(ids[None]).logits[0]
    return logits.log_softmax(-1)[torch.arange(len(ids) - 1), ids[1:]][len(pair.prompt_ids) - 1 :]


def weighted(logps_T: torch.Tensor, side: EncodedSide) -> float:
    return float((logps_T * torch.from_numpy(side.weights)).sum())


def steps(seen: Seen, pairs: Path, out: Path, config: TrainConfig, **options: Any) -> tuple[Trainer, list[EncodedPair]]:
    """Train, and return the trainer with the pairs of the first step."""
    seen.clear()
    assert train(pairs, out, config, RunOptions(**options)) is not None
    return seen[0]


@pytest.mark.parametrize("settings", [{}, {"lora_r": 4}])
def test_the_log_probs_are_those_of_the_named_model(
    settings: dict[str, Any], tiny_model: str, other_model: str, pairs_file: Path, tmp_path: Path, seen: Seen
) -> None:
    config = config_for(tiny_model, reference=other_model, max_steps=1, batch_size=5, **settings)
    trainer, pairs = steps(seen, pairs_file, tmp_path / "out", config)
    assert len(pairs) == 5
    margins = []
    for pair in pairs:
        sides = [pair.chosen, pair.rejected]
        expected = [logps_of(other_model, pair, side) for side in sides]
        assert np.abs(trainer.reference[pair.id] - torch.cat(expected).numpy()).max() < 1e-4
        ratios = [
            weighted(logps_of(tiny_model, pair, side) - ref_T, side)
            for side, ref_T in zip(sides, expected, strict=True)
        ]
        margins.append(config.beta * (ratios[0] - ratios[1]))
    (row,) = metrics_of(tmp_path / "out")
    assert row["margin"] == pytest.approx(sum(margins) / 5, abs=1e-4)
    assert row["loss"] == pytest.approx(sum(math.log1p(math.exp(-margin)) for margin in margins) / 5, abs=1e-4)
    assert abs(row["margin"]) > 0.01


def test_they_are_the_ones_that_a_training_of_that_model_has_to_the_bit(
    tiny_model: str, other_model: str, pairs_file: Path, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    compute = reference.compute_reference
    monkeypatch.setattr(reference, "compute_reference", lambda *given: (computed.append(1), compute(*given))[1])
    kept = config_for(tiny_model, reference=other_model, max_steps=1)
    trainer, _ = steps(seen, pairs_file, tmp_path / "kept", kept)
    theirs, _ = steps(seen, pairs_file, tmp_path / "theirs", config_for(other_model, max_steps=1))
    assert computed == [1], "the second run finds what the first has stored"
    own, _ = steps(seen, pairs_file, tmp_path / "own", config_for(tiny_model, max_steps=1))
    apart, _ = steps(seen, pairs_file, tmp_path / "apart", kept, use_cache=False)
    assert len(computed) == 3
    for name in trainer.reference:
        assert np.array_equal(trainer.reference[name], theirs.reference[name])
        assert np.array_equal(trainer.reference[name], apart.reference[name])
        assert not np.array_equal(trainer.reference[name], own.reference[name])


def test_the_reference_is_gone_before_the_model_that_trains_is_loaded(
    tiny_model: str, other_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[Any]] = []
    names: list[str] = []

    def spy(load: Any) -> Any:
        def loaded(config: TrainConfig, *given: Any) -> Any:
            assert all(model() is None for model in models), "the reference is still there"
            policy = load(config, *given)
            models.append(weakref.ref(policy.model))
            names.append(config.model)
            return policy

        return loaded

    for module in (run, reference):
        monkeypatch.setattr(module, "load_policy", spy(module.load_policy))
    config = config_for(tiny_model, reference=other_model, max_steps=1)
    train(pairs_file, tmp_path / "out", config, RunOptions(eval_file=pairs_file))
    assert names == [other_model, tiny_model]
    (before, _) = [json.loads(line) for line in (tmp_path / "out" / "eval.jsonl").read_text().splitlines()]
    assert (before["step"], before["margin"] == pytest.approx(0, abs=1e-3)) == (0, False)


def test_it_is_recorded_and_shown_without_where_it_lies(
    tiny_model: str, other_model: str, pairs_file: Path, tmp_path: Path
) -> None:
    named = Path(shutil.copytree(other_model, tmp_path / "first-of-all"))
    config, out = config_for(tiny_model, reference=str(named), max_steps=1), tmp_path / "out"
    train(pairs_file, out, config)
    recorded = json.loads((out / "maskdpo_run.json").read_text())["options"]
    assert recorded["reference"] == str(named)
    assert len(recorded["reference_files"]) == len(recorded["model_files"]) == 64
    assert recorded["reference_files"] != recorded["model_files"]
    assert yaml.safe_load((out / "train.yaml").read_text())["reference"] == str(named)
    card = (out / "README.md").read_text()
    assert "compared the model in training with first-of-all" in card and str(tmp_path) not in card
    assert train(pairs_file, out, config) is None, "it is complete"
    random_model(vocab=len(load_tokenizer(tiny_model)), seed=8).save_pretrained(named)
    with pytest.raises(UserError, match=r"reference_files: .*`restart`"):
        train(pairs_file, out, config)
    with pytest.raises(UserError, match=r"reference: '.*first-of-all' -> None"):
        train(pairs_file, out, config_for(tiny_model, max_steps=1))


def test_the_model_itself_is_the_default(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    named = config_for(tiny_model, reference=tiny_model, max_steps=1)
    assert named == config_for(tiny_model, max_steps=1)
    train(pairs_file, tmp_path / "out", config_for(tiny_model, max_steps=1))
    assert train(pairs_file, tmp_path / "out", named) is None
    assert "reference_files" not in json.loads((tmp_path / "out" / "maskdpo_run.json").read_text())["options"]


def test_another_vocabulary_is_refused_before_anything_is_written(
    tiny_model: str, other_model: str, pairs_file: Path, tmp_path: Path
) -> None:
    one_less = Path(shutil.copytree(other_model, tmp_path / "one-less"))
    written = json.loads((one_less / "tokenizer.json").read_text())
    last = max(written["model"]["vocab"], key=written["model"]["vocab"].get)
    number = written["model"]["vocab"].pop(last)
    written["model"]["merges"] = [pair for pair in written["model"]["merges"] if "".join(pair) != last]
    (one_less / "tokenizer.json").write_text(json.dumps(written))
    config = config_for(tiny_model, reference=str(one_less))
    for begin in (lambda: train(pairs_file, tmp_path / "out", config), lambda: plan_run(pairs_file, config)):
        with pytest.raises(
            UserError, match=rf"one-less: has another vocabulary .* has the id {number}: the reference d"
        ):
            begin()
    assert not (tmp_path / "out" / "maskdpo_run.json").exists()


def test_a_loss_without_a_reference_takes_none() -> None:
    with pytest.raises(ValidationError, match="`loss` simpo has no reference; leave `reference` out"):
        config_for("m", reference="other", loss="simpo", beta=2.0)
    assert config_for("m", reference="m", loss="simpo", beta=2.0).reference is None


def test_another_spelling_of_the_model_is_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("run/m/", "./run/m", str(tmp_path / "run" / "m")):
        assert config_for("run/m", reference=given).reference is None
    assert config_for("run/m", reference="run/m2").reference == "run/m2"


def test_a_reference_of_another_architecture_has_layers_of_other_names(
    tiny_model: str, pairs_file: Path, tmp_path: Path, seen: Seen
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    for part in (random_model("gpt2", vocab=len(tokenizer)), tokenizer):
        part.save_pretrained(tmp_path / "gpt2")
    named = str(tmp_path / "gpt2")
    config = config_for(tiny_model, reference=named, max_steps=1, batch_size=1, lora_r=2, lora_targets="q_proj,v_proj")
    assert plan_run(pairs_file, config, ranks=2).reference_memory is not None
    trainer, (pair,) = steps(seen, pairs_file, tmp_path / "out", config)
    expected = torch.cat([logps_of(named, pair, side) for side in (pair.chosen, pair.rejected)])
    assert np.abs(trainer.reference[pair.id] - expected.numpy()).max() < 1e-4


def test_the_plan_says_what_the_reference_takes_before_the_training(
    tiny_model: str, other_model: str, pairs_file: Path
) -> None:
    alone, beside = (plan_run(pairs_file, config_for(tiny_model, reference=name)) for name in (None, other_model))
    assert alone.reference_memory is None
    assert beside.reference_memory is not None and beside.memory == alone.memory
    count = sum(p.numel() for p in loaded(other_model).parameters())
    assert beside.reference_memory["weights"] == pytest.approx(4 * count / 1e9)
    assert beside.reference_memory["gradients"] == beside.reference_memory["AdamW"] == 0
    assert 0 < beside.reference_memory["activations"] < beside.memory["activations"]


def test_what_the_reference_takes_without_gradients() -> None:
    sizes = sizes_of(random_model(num_hidden_layers=6))
    config = config_for("m", dtype="bfloat16")
    again = config.model_copy(update={"gradient_checkpointing": True})
    alone, split = (memory_parts(sizes, config, "cpu", 100, ranks, trains=False) for ranks in (1, 2))
    assert split["layers gathered"] == pytest.approx(2 * 2 * sizes.largest_layer / 1e9)
    assert split["embedding and lm_head gathered"] == pytest.approx(4 * sizes.ends / 1e9)
    training = memory_parts(sizes, config, "cpu", 100, 2)
    assert training["embedding and lm_head gathered"] == 2 * split["embedding and lm_head gathered"]
    casts = "weights in the compute type"
    assert alone[casts] == 2 * sizes.matrices / 1e9
    assert memory_parts(sizes, again, "cpu", 100, trains=False)[casts] == pytest.approx(alone[casts] / 6, rel=1e-3)
