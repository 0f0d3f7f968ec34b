"""The pairs of a block of a file as arrays."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from maskdpo.errors import InputError
from maskdpo.io.blocks import Block
from maskdpo.schemas import Pair
from maskdpo.train.data.encode import Encoder
from maskdpo.train.data.encoded_pair import Drop, EncodedPair

ROW = np.dtype(
    [
        ("prompt", "<i4"),
        ("chosen", "<i4"),
        ("rejected", "<i4"),
        ("name", "<i4"),
        ("weight", "<f8"),
        ("gap", "<f8"),
    ]
)
"""A pair: its tokens by part, the bytes of its id, its weight and its score gap."""
PARTS = ("rows", "ids", "weights", "names")


@dataclass
class Encoded:
    """The pairs of a block as arrays, and what is known of its records."""

    records: list[tuple[int, str]]
    """Line and id of each record, those that are dropped too."""
    rows: NDArray[np.void]
    ids: NDArray[np.int32]
    """Prompt, chosen, rejected of every pair."""
    weights: NDArray[np.float32]
    """Chosen, rejected of every pair."""
    names: bytes
    dropped: Counter[str] = field(default_factory=Counter)
    """By the name of the reason."""
    without_end: int = 0
    took_today: bool = False
    """Whether a pair records no date of its own."""

    def parts(self) -> tuple[bytes, ...]:
        """In the order of ``PARTS``."""
        return self.rows.tobytes(), self.ids.tobytes(), self.weights.tobytes(), self.names


def encode_block(
    block: Block, encoder: Encoder, limit: int | None = None, seen: dict[str, int] | None = None
) -> Encoded:
    """The first ``limit`` records of a block, encoded.

    Args:
        seen: lines by id, to which those of the block are added.

    Raises:
        InputError: one of them is not valid, or has an id that was seen.
    """
    located, before = [], encoder.without_end
    for item in islice(block.located(Pair), limit):
        if isinstance(item, InputError):
            raise item
        if seen is not None:
            note_id(seen, item.record.id, item.line, block)
        located.append(item)
    dropped: Counter[str] = Counter()
    pairs: list[EncodedPair] = []
    for found in encoder.encode_all([item.record for item in located]):
        if isinstance(found, Drop):
            dropped[found.name] += 1
        else:
            pairs.append(found)
    names = [pair.id.encode() for pair in pairs]
    rows = [
        (len(p.prompt_ids), len(p.chosen.ids), len(p.rejected.ids), len(name), p.weight, p.score_gap)
        for p, name in zip(pairs, names, strict=True)
    ]
    ids = [part for p in pairs for part in (p.prompt_ids, p.chosen.ids, p.rejected.ids)]
    weights = [part for p in pairs for part in (p.chosen.weights, p.rejected.weights)]
    return Encoded(
        [(item.line, item.record.id) for item in located],
        np.array(rows, dtype=ROW),
        np.concatenate([np.empty(0, np.int32), *ids]).astype(np.int32),
        np.concatenate([np.empty(0, np.float32), *weights]),
        b"".join(names),
        dropped,
        encoder.without_end - before,
        encoder.took_today,
    )


def note_id(seen: dict[str, int], name: str, line: int, block: Block) -> None:
    """Add a record to the lines by id.

    Raises:
        InputError: its id was seen.
    """
    first = seen.setdefault(name, line)
    if first != line:
        raise InputError(f"duplicate id {name!r}, first on line {first}", path=block.shown, line=line, field="id")
