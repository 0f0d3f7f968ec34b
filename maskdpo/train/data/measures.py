"""What is asked of all pairs at once: of pairs on disk it is read off arrays, and no pair has to be put together."""

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from maskdpo.schemas import SIDES
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.data.store import StoredPairs

Pairs = Sequence[EncodedPair]


class Chained(Sequence[EncodedPair]):
    """Pairs of several sequences, one behind the other."""

    def __init__(self, *parts: Pairs) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @overload
    def __getitem__(self, index: int) -> EncodedPair: ...
    @overload
    def __getitem__(self, index: slice) -> list[EncodedPair]: ...
    def __getitem__(self, index: int | slice) -> EncodedPair | list[EncodedPair]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        for part in self.parts:
            if i < len(part):
                return part[i]
            i -= len(part)
        raise IndexError(index)


def lengths(pairs: Pairs) -> NDArray[np.int64]:
    """[N, 3] tokens of the prompt and of both answers."""
    if isinstance(pairs, StoredPairs):
        return pairs.lengths
    if isinstance(pairs, Chained):
        return np.concatenate([lengths(part) for part in pairs.parts])
    found = [(len(pair.prompt_ids), len(pair.chosen.ids), len(pair.rejected.ids)) for pair in pairs]
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def longest(pairs: Pairs) -> NDArray[np.int64]:
    """[N] ``EncodedPair.longest``."""
    prompt_N, chosen_N, rejected_N = lengths(pairs).T
    longest_N: NDArray[np.int64] = prompt_N + np.maximum(chosen_N, rejected_N)
    return longest_N


def largest_id(pairs: Pairs) -> int:
    """Of all tokens."""
    if isinstance(pairs, StoredPairs):
        return pairs.largest_id
    if isinstance(pairs, Chained):
        return max(largest_id(part) for part in pairs.parts if len(part))
    return max(int(ids.max()) for pair in pairs for ids in (pair.prompt_ids, pair.chosen.ids, pair.rejected.ids))


def predicted(pairs: Pairs, every_token: bool) -> NDArray[np.int64]:
    """[N, 2] tokens of both answers whose log-probs a step computes: those with weight, or all."""
    return lengths(pairs)[:, 1:] if every_token else kept(pairs)


def kept(pairs: Pairs) -> NDArray[np.int64]:
    """[N, 2] tokens with weight of both answers."""
    if isinstance(pairs, StoredPairs):
        return pairs.kept()
    found = [[np.count_nonzero(pair.side(side).weights) for side in SIDES] for pair in pairs]
    return np.array(found, dtype=np.int64).reshape(-1, 2)
