"""Random draws that depend on the seed and on the name of what is drawn, and on nothing else.

So a draw does not depend on the order of the input, and more data changes no earlier draw.
"""

import hashlib
from typing import Literal

Split = Literal["train", "test"]


def draw(seed: int, *names: str) -> float:
    """A number in [0, 1), uniform over names; the same for the same seed and names."""
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(topic: str, test_size: float, seed: int) -> Split:
    """The split of a topic, by its own draw: more data moves no topic to the other split."""
    return "test" if draw(seed, topic) < test_size else "train"
