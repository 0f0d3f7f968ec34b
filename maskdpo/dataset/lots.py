"""Chance that needs no order: everything that is drawn has a lot of its own, which follows from the seed and its name.

So a draw does not depend on the order of the input, and growing the data changes no lot that is there already.
"""

import hashlib
from typing import Literal

Split = Literal["train", "test"]


def lot(seed: int, *names: str) -> float:
    """A number in [0, 1), evenly distributed over names; the same for the same seed and names."""
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(topic: str, test_size: float, seed: int) -> Split:
    """The split of a topic: by its lot alone, so that growing the data moves no topic across."""
    return "test" if lot(seed, topic) < test_size else "train"
