"""Log-probs of the reference model, computed once per token and kept on disk.

All tokens of the answers are stored, whatever their weight: the cache holds for every mask, loss and epoch.
"""

import gc
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskdpo.console import progress
from maskdpo.errors import UserError
from maskdpo.identity import fingerprint
from maskdpo.models import cache_dir, load_tokenizer
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.data.measures import Chained
from maskdpo.train.data.store import StoredPairs
from maskdpo.train.loss_registry import LOSSES
from maskdpo.train.model.adapter import adapter_off
from maskdpo.train.model.load import load_policy
from maskdpo.train.ranks import Ranks
from maskdpo.train.run.stored_reference import StoredReference, begun_reference, is_whole, write_reference
from maskdpo.train.step import Reference, Trainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def find_reference(trainer: Trainer, pairs: StoredPairs, use_cache: bool) -> Reference:
    """The reference log-probs of these pairs: from the cache, or by the trainer's model, which must still be the one
    that was loaded. Empty for a loss without a reference. Every rank must call.

    They are on disk; without ``use_cache`` in a file that is gone when every rank has it open.

    Raises:
        UserError: they cannot be written.
    """
    if LOSSES[trainer.config.loss].reference_free:
        return {}
    ranks, file = trainer.ranks, None
    if use_cache:  # rank 0 alone names the file: for its name the whole model is read and hashed
        name = cache_file(trainer.config.model, _precision(trainer), pairs) if ranks.first else ""
        file = cache_dir() / "reference" / ranks.from_first(name)
    found = file
    with ExitStack() as stack:
        if found is None or ranks.any(not is_whole(found, pairs)):
            bar = stack.enter_context(progress("reference log-probs", len(pairs), "pairs"))
            stack.enter_context(adapter_off(trainer.model))
            begun = stack.enter_context(begun_reference(file, ranks))
            found = write_reference(
                begun, pairs, ranks, lambda some: compute_reference(trainer, some, bar.advance), bar.advance
            )
        reference = StoredReference(found, pairs)
        ranks.wait()  # every rank has it open
    return reference


def references_of(
    config: TrainConfig, sets: Sequence[StoredPairs], device: str, ranks: Ranks, use_cache: bool
) -> list[Reference]:
    """The reference log-probs of each set of pairs by another model than the one that trains: those that a training of
    that model, by the settings ``config``, would have. The model is gone again when the function returns, so that it
    need not fit beside the one that trains. Every rank must call.

    Raises:
        UserError: as ``load_policy`` and ``find_reference``.
    """
    found = _by_model_of(config, sets, device, ranks, use_cache)
    gc.collect()  # what splits a model among ranks makes cycles of it
    return found


def _by_model_of(
    config: TrainConfig, sets: Sequence[StoredPairs], device: str, ranks: Ranks, use_cache: bool
) -> list[Reference]:
    policy = load_policy(config, Chained(*sets), device, ranks)
    trainer = Trainer(policy.model, config, policy.layout, ranks)
    return [find_reference(trainer, pairs, use_cache) for pairs in sets]


def check_vocabulary(config: TrainConfig, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Check that the model that ``reference`` names reads the token ids of the pairs as the tokens that they are.

    Args:
        tokenizer: of the model that trains.

    Raises:
        UserError: the reference cannot be read; a token has another id there, or none.
    """
    if config.reference is None:
        return
    try:
        there = load_tokenizer(config.reference, trust_remote_code=config.trust_remote_code).get_vocab()
    except UserError as error:
        raise UserError(f"`reference` {config.reference}: {error}") from error
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if there.get(token) != number:
            found = f"gives it the id {there[token]}" if token in there else "does not have it"
            raise UserError(
                f"`reference` {config.reference}: has another vocabulary than `model` {config.model}, whose token "
                f"{token!r} has the id {number}: the reference {found}. Name one with the same vocabulary"
            )


def _precision(trainer: Trainer) -> str:
    """What decides the last digits, beside the model and the token ids."""
    config = trainer.config
    decides = {
        "compute": trainer.compute,
        "attention": trainer.model.config._attn_implementation,
        "stored": str(trainer.model.dtype),
        "weights": config.weights,  # of weights in bfloat16 that train, the sums between layers are float32
        "load_in_4bit": config.load_in_4bit,
        "compile": config.compile,
        # split weights in bfloat16 are rounded a little differently: see docs/scale.md
        "split": trainer.ranks.size > 1 and trainer.compute == "bfloat16",
    }
    return json.dumps(decides, sort_keys=True)


@torch.no_grad()
def compute_reference(
    trainer: Trainer, pairs: Sequence[EncodedPair], advance: Callable[[int], None] = lambda done: None
) -> dict[str, NDArray[np.float32]]:
    """Log-probs under the present weights of the trainer's model. Every rank must call.

    Args:
        advance: called with the number of pairs that a forward pass of all ranks has done.
    """
    own: dict[str, NDArray[np.float32]] = {}
    for group, counts in trainer.passes(pairs):
        logps_N = trainer.logps(trainer.collate(group, every_token=True))
        if counts:
            own |= reference_of(group, logps_N)
            advance(trainer.ranks.size * len(group))  # the other ranks are about as far
    return share_reference(own, pairs, trainer.ranks)


def cache_file(model: str, precision: str, pairs: StoredPairs) -> str:
    """The name of the file for the log-probs of these token ids under this model and arithmetic."""
    decides = json.dumps([fingerprint(model), precision, pairs.tokens_digest])
    return f"{hashlib.sha256(decides.encode()).hexdigest()[:32]}.f32"


def reference_of(pairs: Sequence[EncodedPair], logps_N: Tensor) -> dict[str, NDArray[np.float32]]:
    """By pair, the log-probs of a pass over these pairs that predicted every token of their answers."""
    ends = np.cumsum([len(pair.chosen.ids) + len(pair.rejected.ids) for pair in pairs])
    parts = np.split(logps_N.cpu().numpy(), ends[:-1])
    return {pair.id: np.ascontiguousarray(part) for pair, part in zip(pairs, parts, strict=True)}


def share_reference(
    own: dict[str, NDArray[np.float32]], pairs: Sequence[EncodedPair], ranks: Ranks
) -> dict[str, NDArray[np.float32]]:
    """The log-probs of all ranks together; each pair must be in ``own`` of one rank only. Every rank must call."""
    if ranks.size == 1:
        return own
    lengths = [len(pair.chosen.ids) + len(pair.rejected.ids) for pair in pairs]
    parts = [
        torch.from_numpy(own[pair.id]) if pair.id in own else torch.zeros(n)
        for pair, n in zip(pairs, lengths, strict=True)
    ]
    logps_T = ranks.sum(torch.cat(parts)).numpy()
    ends = np.cumsum(lengths)[:-1]
    return {pair.id: part for pair, part in zip(pairs, np.split(logps_T, ends), strict=True)}
