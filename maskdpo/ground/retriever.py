"""The interface of retrievers, and those that there are."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from maskdpo.ground.store import PassageStore
from maskdpo.registry import Registry


class Found(NamedTuple):
    """A passage that bears on a query."""

    passage: int
    """Its number in the store."""
    score: float
    """Larger is better; the scale is the retriever's."""


class Retriever(Protocol):
    """Finds the passages that bear on a query.

    ``build`` is called once for each corpus, with an empty folder in the cache, and writes there what ``load`` reads
    whenever the corpus is used. A folder that was not finished is never loaded.
    """

    @property
    def version(self) -> str:
        """What decides the index and its results, such as a model and its revision: another version, another index."""

    def build(self, passages: PassageStore, folder: Path) -> None: ...

    def load(self, passages: PassageStore, folder: Path) -> None: ...

    def search(self, queries: Sequence[str], most: int) -> Sequence[Sequence[Found]]:
        """For every query the passages that bear on it, at most ``most``, the best first; none where none does."""


RETRIEVERS: Registry[Callable[..., Retriever]] = Registry(
    "retriever", {"bm25": "maskdpo.ground.bm25:BM25"}, group="maskdpo.retrievers"
)
"""A retriever's factory may ask for ``options`` of its own."""
