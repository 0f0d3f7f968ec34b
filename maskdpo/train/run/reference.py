"""Log-probs of the reference model, computed once per token and kept on disk.

All tokens of the answers are stored, whatever their weight: the cache holds for every mask, loss and epoch.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskdpo.console import progress
from maskdpo.identity import fingerprint
from maskdpo.models import cache_dir
from maskdpo.train.config import LOSSES
from maskdpo.train.data.encode import EncodedPair
from maskdpo.train.data.store import StoredPairs
from maskdpo.train.model.adapter import adapter_off
from maskdpo.train.ranks import Ranks
from maskdpo.train.run.stored_reference import StoredReference, is_whole, write_reference
from maskdpo.train.step import Reference, Trainer


def find_reference(trainer: Trainer, pairs: Sequence[EncodedPair], use_cache: bool) -> Reference:
    """The reference log-probs of these pairs: from the cache, or by the trainer's model, which must still be the one
    that was loaded. Empty for a loss without a reference. Every rank must call.

    Those of pairs on disk are on disk as well, without ``use_cache`` in a file that is gone when every rank has it
    open; others are held in memory.
    """
    if LOSSES[trainer.config.loss].reference_free:
        return {}
    ranks, file = trainer.ranks, None
    if not isinstance(pairs, StoredPairs):
        with adapter_off(trainer.model):
            return compute_reference(trainer, pairs)
    if use_cache:  # rank 0 alone names the file: for its name the whole model is read and hashed
        name = cache_file(trainer.config.model, _precision(trainer), pairs) if ranks.first else ""
        file = cache_dir() / "reference" / ranks.from_first(name)
    found = file
    if found is None or ranks.any(not is_whole(found, pairs)):
        with progress("reference log-probs", len(pairs), "pairs") as bar, adapter_off(trainer.model):
            found = write_reference(
                file, pairs, ranks, lambda some: compute_reference(trainer, some, bar.advance), bar.advance
            )
    reference = StoredReference(found, pairs)
    if found != file:
        ranks.any(False)  # every rank has it open
        if ranks.first_here:
            shutil.rmtree(found.parent, ignore_errors=True)
    return reference


def _precision(trainer: Trainer) -> str:
    """What decides the last digits, beside the model and the token ids."""
    weights = "" if trainer.model.dtype == torch.float32 else f", weights in {trainer.model.dtype}"
    weights += ", linear layers in 4 bits" if trainer.config.load_in_4bit else ""
    if trainer.ranks.size > 1 and trainer.compute == "bfloat16":
        weights += ", split"  # and rounded a little differently: see docs/scale.md
    return f"{trainer.compute}{weights}, {trainer.model.config._attn_implementation}"


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


def cache_file(model: str, compute: str, pairs: StoredPairs) -> str:
    """The name of the file for the log-probs of these token ids under this model and compute type."""
    decides = json.dumps([fingerprint(model), compute, pairs.tokens_digest])
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
