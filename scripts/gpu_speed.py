"""Time and memory on this device: attention of the shared layout, and whole training steps of a random Llama of 1B."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from gpu_parts import (
    DEVICE,
    ON_GPU,
    ONE_B,
    TINY,
    forget,
    llama,
    model_folder,
    peak_gb,
    random_pairs,
    row,
    seconds_of,
)

from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import Layout, collate
from maskdpo.train.model.flex import use_flex_attention
from maskdpo.train.model.load import load_policy
from maskdpo.train.model.logps import token_logps
from maskdpo.train.run.loop import run_steps
from maskdpo.train.run.reference import compute_reference
from maskdpo.train.step import Trainer

ROWS_OF = (512, 1024, 2048, 4096)
"""Tokens of a row of the shared layout, a ninth of them the prompt."""
TOKENS = 16_384
"""Of a pass in which layouts are compared."""


def layouts(small: bool) -> Iterator[dict[str, Any]]:
    """Forward and backward pass of some layers in bfloat16, with either layout and attention, at several lengths."""
    sizes = TINY if small else ONE_B | {"num_hidden_layers": 4, "vocab_size": 4096}
    contenders: list[tuple[str, Layout, str]] = [("shared, SDPA", "shared", "sdpa"), ("padded, SDPA", "padded", "sdpa")]
    if ON_GPU:  # PyTorch has no gradients of FlexAttention on a CPU
        contenders.insert(1, ("shared, flex", "shared", "flex"))
    for length in (64, 300) if small else ROWS_OF:
        answer = 4 * length // 9
        count = 2 if small else TOKENS // length
        pairs = random_pairs([(length - 2 * answer, answer, answer - i % 7) for i in range(count)], sizes["vocab_size"])
        expected = None
        for name, layout, attention in contenders:
            model = llama(**sizes)
            if attention == "flex":
                use_flex_attention(model)
            batch = collate(pairs, layout).to(DEVICE)

            def work(model: Any = model, batch: Any = batch) -> torch.Tensor:
                with torch.autocast(DEVICE, torch.bfloat16, enabled=ON_GPU):
                    logps_N = token_logps(model, batch)
                logps_N.sum().backward()  # type: ignore[no-untyped-call]
                return logps_N.detach()

            first = work()
            forget()
            seconds = seconds_of(work, 1 if small else 5, warm=0 if small else 2)
            expected = first if expected is None else expected
            apart = float((first - expected).abs().mean())
            shown = f"{1000 * seconds:.1f} ms, {peak_gb():.2f} GB"
            yield row(f"rows of {length}: {name}", shown, seconds=seconds, peak_gb=peak_gb(), mean_difference=apart)
            if name != contenders[0][0]:
                yield row(f"rows of {length}: {name}, mean difference of log-probs", apart, 0.05)
            del model, batch, work


def throughput(small: bool) -> Iterator[dict[str, Any]]:
    """Steps of the trainer on prompts of 100 and answers of 400 tokens; the first one warms up."""
    wide, usual = (256, 128) if small else (16_384, 2048)
    yield from _all_trained(
        small,
        {
            f"Mask-DPO, {usual} tokens": {"tokens_per_batch": usual},
            f"Mask-DPO, {wide} tokens": {"tokens_per_batch": wide},
            f"DPO, {wide} tokens": {"tokens_per_batch": wide, "method": "dpo"},
            f"Mask-DPO, {wide} tokens, SDPA": {"tokens_per_batch": wide, "attention": "sdpa"},
            f"Mask-DPO, {wide} tokens, checkpointing": {"tokens_per_batch": wide, "gradient_checkpointing": True},
            f"Mask-DPO, {wide} tokens, compile": {"tokens_per_batch": wide, "compile": True},
        },
    )


def eight_bits(small: bool) -> Iterator[dict[str, Any]]:
    """The steps of ``throughput`` with less memory for weights, gradients and moments."""
    common = {"tokens_per_batch": 256 if small else 16_384, "optim": "adamw8bit"}
    low = common | {"weights": "bfloat16"}
    contenders = {"adamw8bit": common, "adamw8bit, bfloat16 weights": low}
    yield from _all_trained(small, contenders | {"adamw8bit, bfloat16 weights, compile": low | {"compile": True}})


def _all_trained(small: bool, contenders: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = str(model_folder(Path(name), dtype=torch.bfloat16, **(TINY if small else ONE_B)))
        for title, settings in contenders.items():
            if not (small and "compile" in settings):  # half a minute on a CPU
                yield from _trained(title, folder, small, **settings)


def _trained(name: str, folder: str, small: bool, **settings: Any) -> Iterator[dict[str, Any]]:
    """Three steps of 16 pairs each, of the model in the folder."""
    sizes = TINY if small else ONE_B
    count, prompt, answer = (4, 10, 40) if small else (16, 100, 400)
    share = 1.0 if settings.get("method") == "dpo" else 0.5
    pairs = random_pairs([(prompt, answer, answer - i % 5) for i in range(count)], sizes["vocab_size"], share)
    config = TrainConfig(
        model=folder, batch_size=count, epochs=3, lr=1e-6, warmup_ratio=0, log_masked_every=0, **settings,
    )  # fmt: skip
    forget()
    policy = load_policy(config, pairs[:2], DEVICE)
    forget()  # what was tried needs memory for a moment, and in a short run more than the steps
    used = policy.model.config._attn_implementation
    trainer = Trainer(policy.model, config, policy.layout)
    trainer.reference = compute_reference(trainer, pairs)
    steps = list(run_steps(trainer, pairs, 0, 3))
    last = steps[1:]
    values = {
        "pairs_per_s": sum(step.pairs_per_s for step in last) / len(last),
        "peak_share": sum(step.peak_share for step in last) / len(last),
        "peak_gb": peak_gb(),
        "first_loss": steps[0].loss,
        "last_loss": steps[-1].loss,
    }
    shown = f"{values['pairs_per_s']:.2f} pairs/s, {values['peak_share']:.1%} of the peak, {values['peak_gb']:.1f} GB"
    yield row(f"{name} ({used})", shown, **values)
