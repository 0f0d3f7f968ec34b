"""Log-probs of the reference model, computed once per token and kept on disk.

All tokens of the answers are stored, whatever their weight: the cache survives another mask, loss and epoch.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from maskdpo.identity import fingerprint
from maskdpo.models import cache_dir
from maskdpo.train.data.encode import EncodedPair
from maskdpo.train.model.distributed import Ranks

Reference = dict[str, NDArray[np.float32]]
"""By pair id: [chosen tokens + rejected tokens] float32."""


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
    """Write atomically; a reader sees the whole file or none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent)
    os.close(handle)
    try:
        save_file(reference, temporary)
        Path(temporary).replace(file)
    finally:
        Path(temporary).unlink(missing_ok=True)


def reference_of(pairs: Sequence[EncodedPair], logps_N: Tensor) -> Reference:
    """By pair, the log-probs of a pass over these pairs that predicted every token of their answers."""
    ends = np.cumsum([len(pair.chosen.ids) + len(pair.rejected.ids) for pair in pairs])
    parts = np.split(logps_N.cpu().numpy(), ends[:-1])
    return {pair.id: np.ascontiguousarray(part) for pair, part in zip(pairs, parts, strict=True)}


def share_reference(own: Reference, pairs: Sequence[EncodedPair], ranks: Ranks) -> Reference:
    """What all ranks know together; each pair must be known to one rank only. Every rank must call."""
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


def reference_logps(reference: Reference, pairs: Sequence[EncodedPair], *, every_token: bool = False) -> Tensor:
    """[N] reference log-probs in the order of ``collate(pairs, ...)``: of the tokens with weight, or of every token."""
    parts = []
    for pair in pairs:
        weights = np.concatenate([pair.chosen.weights, pair.rejected.weights])
        parts.append(reference[pair.id] if every_token else reference[pair.id][np.flatnonzero(weights)])
    return torch.from_numpy(np.concatenate(parts))
