"""Vanilla DPO against TRL's DPOTrainer: the same pairs, the same model, the same AdamW, several steps in float32.

Only TRL's public surface is used: its dataset, its collator, its loss, its training loop.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from train_helpers import Labelled, make_pair
from transformers import AutoTokenizer, PreTrainedModel

from maskdpo.models import load_model
from maskdpo.schemas import Label, Pair
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encode import encode_pairs, encoder_for
from maskdpo.train.run.loop import run_steps
from maskdpo.train.run.reference import compute_reference
from maskdpo.train.step import Trainer

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

pytestmark = pytest.mark.slow

RIGHT, WRONG = Label.NO_HALLUCINATION, Label.CONTRADICTORY
BETA, LR, STEPS = 0.4, 1e-3, 6
CITIES = ("Paris", "London", "Rome", "Zürich", "北京")

# No text behind the end of turn: TRL trains it, maskdpo does not.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def some_pairs(raw: bool) -> list[Pair]:
    """Answers of different lengths; of labels that another method would mask."""
    chosen: list[Labelled] = [
        [(f"{city} has a river.", RIGHT), (" It is green."[: 5 + 2 * i], WRONG)] for i, city in enumerate(CITIES)
    ]
    rejected: list[Labelled] = [[(f"{city} has no river."[: 30 - 3 * i], WRONG)] for i, city in enumerate(CITIES)]
    return [
        make_pair(c, r, id=city, prompt=f"Tell me about {city}.\n", raw=raw)
        for c, r, city in zip(chosen, rejected, CITIES, strict=True)
    ]


@pytest.fixture(scope="module")
def model_folder(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model with the template above."""
    folder = tmp_path_factory.mktemp("for-trl")
    load_model(tiny_model, dtype=torch.float32, device="cpu").save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return str(folder)


def trl_trainer(folder: str, pairs: Sequence[Pair], out: Path, **settings: Any) -> Any:
    """All pairs in every step; AdamW as in ``Trainer``, no warm-up, a linear fall to zero, no clipping."""
    rows = [json.loads(pair.model_dump_json(include={"prompt", "chosen", "rejected"})) for pair in pairs]
    fixed: dict[str, Any] = {
        "beta": BETA,
        "learning_rate": LR,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "optim": "adamw_torch",
        "per_device_train_batch_size": len(pairs),
        "max_steps": STEPS,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
    }
    config = trl.DPOConfig(
        output_dir=str(out),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **fixed | settings,
    )
    return trl.DPOTrainer(
        model=load_model(folder, dtype=torch.float32, device="cpu"),
        ref_model=load_model(folder, dtype=torch.float32, device="cpu"),
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )


def our_trainer(folder: str, pairs: Sequence[Pair], **settings: Any) -> tuple[Trainer, list[Any]]:
    fixed = {"model": folder, "method": "dpo", "beta": BETA, "lr": LR, "warmup_ratio": 0.0, "max_grad_norm": 1e9}
    fixed |= {"batch_size": len(pairs), "epochs": STEPS, "dtype": "float32", "tokens_per_batch": 120}
    config = TrainConfig.model_validate(fixed | settings)
    encoded = encode_pairs(pairs, encoder_for(config, AutoTokenizer.from_pretrained(folder))).pairs
    assert len(encoded) == len(pairs)
    trainer = Trainer(load_model(folder, dtype=torch.float32, device="cpu"), config, "shared")
    trainer.reference = compute_reference(trainer, encoded)
    return trainer, encoded


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors])


def parameters(model: PreTrainedModel) -> Tensor:
    return flat([p for _, p in sorted(model.named_parameters())])


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("raw", [True, False])
def test_losses_and_weights_over_several_steps_are_those_of_trl(raw: bool, model_folder: str, tmp_path: Path) -> None:
    pairs = some_pairs(raw)
    theirs = trl_trainer(model_folder, pairs, tmp_path / "trl")
    theirs.train()
    expected = [row["loss"] for row in theirs.state.log_history if "loss" in row]
    ours, encoded = our_trainer(model_folder, pairs)
    before = parameters(ours.model)
    found = list(run_steps(ours, encoded, 0, STEPS))
    assert len(expected) == STEPS
    assert expected[0] - expected[-1] > 0.2, "nothing was learnt: this test says nothing"
    assert [stats.loss for stats in found] == pytest.approx(expected, abs=1e-5)
    moved, moved_by_trl = parameters(ours.model) - before, parameters(theirs.model) - before
    assert relative(moved, moved_by_trl) < 1e-3


# TRL's name, its settings, ours. Its losses "sft" (one mean over the batch) and "ipo" with a mask are other things.
SAME: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("sigmoid", {}, {"loss": "sigmoid"}),
    ("hinge", {}, {"loss": "hinge"}),
    ("ipo", {}, {"loss": "ipo"}),
    ("sigmoid_norm", {}, {"loss": "sigmoid-norm"}),
    ("robust", {"label_smoothing": 0.2}, {"loss": "robust", "label_smoothing": 0.2}),
    ("sigmoid", {"ld_alpha": 0.3}, {"loss": "ld-dpo", "ld_alpha": 0.3}),
]


@pytest.mark.parametrize(("name", "settings", "own"), SAME)
@pytest.mark.parametrize("raw", [True, False])
def test_loss_and_gradient_of_one_batch_are_those_of_trl(
    name: str, settings: dict[str, Any], own: dict[str, Any], raw: bool, model_folder: str, tmp_path: Path
) -> None:
    """With a policy that has moved away from its reference, so that no loss is where it starts."""
    pairs = some_pairs(raw)
    theirs = trl_trainer(model_folder, pairs, tmp_path / "trl", loss_type=name, **settings)
    ours, encoded = our_trainer(model_folder, pairs, **own)
    for model in (theirs.model, ours.model):
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for _, parameter in sorted(model.named_parameters()):
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    batch = next(iter(theirs.get_train_dataloader()))
    loss = theirs.compute_loss(theirs.model, batch)
    loss.backward()
    found = ours.forward(encoded).loss_B.mean()
    found.backward()
    assert found.item() == pytest.approx(loss.item(), rel=1e-5)
    gradients = [flat([p.grad for _, p in sorted(model.named_parameters())]) for model in (ours.model, theirs.model)]
    assert gradients[1].norm() > 0
    assert relative(gradients[0], gradients[1]) < 1e-5
