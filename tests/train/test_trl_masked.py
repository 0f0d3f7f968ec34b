"""examples/trl_masked.py: TRL's DPOTrainer with our masks computes the losses of our own training."""

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from train_helpers import make_pair

import maskdpo
from maskdpo.models import load_tokenizer
from maskdpo.schemas import Label, Pair

pytest.importorskip("trl")
pytest.importorskip("datasets")

RIGHT, WRONG, NO_FACT = Label.NO_HALLUCINATION, Label.CONTRADICTORY, Label.NO_FACT
STEPS, BATCH = 3, 2
CITIES = ("Paris", "London", "Rome", "Zürich", "北京", "Basel")
LR = 1e-4  # with a small beta, so that loss and log-probs are of one size and float32 rounds the loss by 1e-6
SETTINGS: dict[str, Any] = {"beta": 0.1, "max_steps": STEPS, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    file = Path(__file__).parents[2] / "examples" / "trl_masked.py"
    spec = importlib.util.spec_from_file_location("trl_masked", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def some_pairs() -> list[Pair]:
    """Masks begin, end and have holes at other places in every answer; answers differ in length."""
    pairs = []
    for i, city in enumerate(CITIES):
        chosen = [(f"{city} has a river.", RIGHT), (" It is green."[: 5 + i], WRONG), (" So it goes.", NO_FACT)]
        rejected = [(" Hm."[i % 2 :], RIGHT), (f" {city} has no river."[: 24 - i], WRONG), (" Ask there.", NO_FACT)]
        pairs.append(make_pair(chosen, rejected, id=city, prompt=f"Tell me about {city}.", raw=i == 2))
    return pairs


def without_mask() -> Pair:
    return make_pair([("All wrong.", WRONG)], [("Wrong, too.", WRONG)], id="dropped")


def losses_of_trl(example: ModuleType, pairs: Sequence[Pair], model: str, method: str, out: Path) -> list[float]:
    """The pairs in our own order (seed 0), AdamW, a linear fall to zero without warm-up, no clipping, float32."""
    order = np.random.default_rng([0, 0]).permutation(len(pairs))
    tokenizer = load_tokenizer(model)
    encoded = example.encode([pairs[i] for i in order], tokenizer, method)
    trainer = example.make_trainer(
        encoded,
        model,
        tokenizer,
        output_dir=str(out),
        learning_rate=LR,
        lr_scheduler_type="linear",
        warmup_steps=0,
        max_grad_norm=0.0,
        per_device_train_batch_size=BATCH,
        train_sampling_strategy="sequential",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        **SETTINGS,
    )
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("method", ["mask-dpo", "dpo"])
def test_first_losses_are_those_of_our_own_training(
    method: str, example: ModuleType, tiny_model: str, tmp_path: Path
) -> None:
    pairs = some_pairs()
    ours = maskdpo.train_model(
        pairs,
        tmp_path / "ours",
        model=tiny_model,
        method=method,
        batch_size=BATCH,
        lr=LR,
        warmup_ratio=0.0,
        max_grad_norm=1e9,
        dtype="float32",
        use_cache=False,
        **SETTINGS,
    )
    assert ours is not None and ours.pairs == len(pairs)
    found = losses_of_trl(example, pairs, tiny_model, method, tmp_path / "trl")
    expected = [stats.loss for stats in ours.steps]
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(expected) == STEPS
    assert expected[0] == pytest.approx(np.log(2))
    assert min(abs(loss - np.log(2)) for loss in expected[1:]) > 1e-3, "nothing was learnt: this test says nothing"


def test_masks_are_ones_where_tokens_train(example: ModuleType, tiny_model: str) -> None:
    pairs = example.encode(some_pairs(), load_tokenizer(tiny_model), "mask-dpo")
    batch = example.collate([example.make_row(pair) for pair in pairs])
    answers = [pair.side(side) for side in ("chosen", "rejected") for pair in pairs]
    for row, (pair, answer) in enumerate(zip([*pairs, *pairs], answers, strict=True)):
        length = len(pair.prompt_ids) + len(answer.ids)
        assert batch["input_ids"][row, :length].tolist() == [*pair.prompt_ids, *answer.ids]
        assert batch["completion_mask"][row, len(pair.prompt_ids) : length].tolist() == answer.weights.tolist()
        assert batch["completion_mask"][row].sum() == answer.weights.sum()
        assert batch["attention_mask"][row].sum() == length


def test_script_leaves_out_what_cannot_be_encoded(
    example: ModuleType, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file, out = tmp_path / "pairs.jsonl", tmp_path / "out"
    maskdpo.write_records(file, [without_mask(), *some_pairs()])
    arguments = [str(file), "--model", tiny_model, "--out", str(out), "--max-steps", "1"]
    monkeypatch.setattr(sys, "argv", ["trl_masked.py", *arguments])
    example.main()
    assert "1 pairs left out: no token of the chosen answer takes part in the loss" in capsys.readouterr().out
    assert {"model.safetensors", "tokenizer.json"} <= {path.name for path in out.iterdir()}


def test_weights_between_0_and_1_are_refused(example: ModuleType, tiny_model: str) -> None:
    tokenizer = load_tokenizer(tiny_model)
    first = some_pairs()[0]
    unsure = [sentence.model_copy(update={"confidence": 0.7}) for sentence in first.chosen_sentences]
    pair = first.model_copy(update={"chosen_sentences": unsure})
    with pytest.raises(maskdpo.UserError, match=r"pair Paris: .*method 'soft'.*other than 0 and 1, .*`maskdpo train`"):
        example.encode([pair], tokenizer, "soft")
    assert len(example.encode([pair], tokenizer, "mask-dpo")) == 1
    with pytest.raises(maskdpo.UserError, match="pair Paris: the pair, or"):
        example.encode([pair.model_copy(update={"weight": 2.0})], tokenizer, "mask-dpo")


def test_no_pair_left_is_an_error_of_the_command_line(
    example: ModuleType, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    maskdpo.write_records(tmp_path / "pairs.jsonl", [without_mask()])
    arguments = [str(tmp_path / "pairs.jsonl"), "--model", tiny_model, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["trl_masked.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        example.main()
    assert stopped.value.code == 2
    assert re.search("error: no pair is left to train on", capsys.readouterr().err)
