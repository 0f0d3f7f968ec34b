"""Log-probs of the reference model, computed once per token and kept on disk.

All tokens of the answers are stored, whatever their weight: the cache holds for every mask, loss and epoch.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import Tensor

from maskdpo.console import progress
from maskdpo.identity import fingerprint
from maskdpo.io import atomic_write
from maskdpo.models import cache_dir
from maskdpo.train.config import LOSSES
from maskdpo.train.data.encode import EncodedPair
from maskdpo.train.model.adapter import adapter_off
from maskdpo.train.ranks import Ranks
from maskdpo.train.step import Reference, Trainer


def find_reference(trainer: Trainer, pairs: Sequence[EncodedPair], use_cache: bool) -> Reference:
    """The reference log-probs of these pairs: from the cache, or by the trainer's model, which must still be the one
    that was loaded. Empty for a loss without a reference."""
    if LOSSES[trainer.config.loss].reference_free:
        return {}
    ranks = trainer.ranks
    # Rank 0 alone looks: for the name of the file the whole model is read and hashed.
    file = cache_file(trainer.config.model, _precision(trainer), pairs) if use_cache and ranks.first else None
    reference = load_reference(file) if file else None
    if ranks.any(reference is not None):
        return share_reference(reference or {}, pairs, ranks)
    with progress("reference log-probs", len(pairs), "pairs") as bar, adapter_off(trainer.model):
        reference = compute_reference(trainer, pairs, bar.advance)
    if file:
        save_reference(file, reference)
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
) -> Reference:
    """Log-probs under the present weights of the trainer's model. Every rank must call.

    Args:
        advance: called with the number of pairs that a forward pass of all ranks has done.
    """
    own: Reference = {}
    for group, counts in trainer.passes(pairs):
        logps_N = trainer.logps(trainer.collate(group, every_token=True))
        if counts:
            own |= reference_of(group, logps_N)
            advance(trainer.ranks.size * len(group))  # the other ranks are about as far
    return share_reference(own, pairs, trainer.ranks)


def cache_file(model: str, compute: str, pairs: Sequence[EncodedPair]) -> Path:
    """Where the reference log-probs of these token ids under this model and compute type are kept."""
    digest = hashlib.sha256(json.dumps([fingerprint(model), compute]).encode())
    for pair in pairs:
        for ids in (pair.prompt_ids, pair.chosen.ids, pair.rejected.ids):
            digest.update(len(ids).to_bytes(8, "little") + ids.tobytes())
        digest.update(pair.id.encode())
    return cache_dir() / "reference" / f"{digest.hexdigest()[:32]}.safetensors"


def load_reference(file: Path) -> Reference | None:
    return dict(load_file(file)) if file.exists() else None


def save_reference(file: Path, reference: Reference) -> None:
    with atomic_write(file) as handle:
        handle.write(save(reference))


def reference_of(pairs: Sequence[EncodedPair], logps_N: Tensor) -> Reference:
    """By pair, the log-probs of a pass over these pairs that predicted every token of their answers."""
    ends = np.cumsum([len(pair.chosen.ids) + len(pair.rejected.ids) for pair in pairs])
    parts = np.split(logps_N.cpu().numpy(), ends[:-1])
    return {pair.id: np.ascontiguousarray(part) for pair, part in zip(pairs, parts, strict=True)}


def share_reference(own: Reference, pairs: Sequence[EncodedPair], ranks: Ranks) -> Reference:
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
