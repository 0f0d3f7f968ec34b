"""The retriever ``bm25``: by the words that a passage shares with a query, rare words most, with the library bm25s."""

from array import array
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from maskdpo.console import progress
from maskdpo.errors import UserError
from maskdpo.ground.retriever import Found
from maskdpo.ground.store import Passage, PassageStore
from maskdpo.text.lookup import TERMS, bm25s, terms

INDEX = "1"
"""Changes with what an index holds."""
HEAVIEST = 8
"""Words of a query that make up the scale of scores: no passage is expected to have all words of a long one."""
_TERMS = "terms.tmp"
_ASKING = """biography briefly can could describe detail detailed discuss essay explain give how i know let list me
mention my our outline overview paragraph please provide say short show something summarise summarize summary tell
want what whatever when where whether which who whom whose why write would you your
什么 怎么 怎样 如何 为什么 为何 哪 哪里 哪些 哪个 谁 请 请问 告诉 介绍 简述 描述 解释 说明 一下 关于 有关 吗 呢"""


class BM25Options(BaseModel):
    """Of the retriever ``bm25``."""

    model_config = ConfigDict(extra="forbid")

    least: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """A passage with a smaller score does not bear on the query. The score of a passage is its BM25 score as a share of
    what the eight heaviest words of the query weigh, so a query about something that the corpus does not know has small
    scores: words that are not in the corpus are the heaviest."""


class BM25:
    """BM25 over the terms of passages and of the titles of their documents."""

    def __init__(self, options: BM25Options) -> None:
        self._least = options.least
        self._index: Any = None
        self.version = f"bm25-{INDEX}, terms {TERMS}, bm25s {version('bm25s')}"

    def build(self, passages: PassageStore, folder: Path) -> None:
        vocabulary: dict[str, int] = {}
        ends = array("q", [0])
        with (folder / _TERMS).open("wb") as file, progress("ground: indexing", len(passages), "passages") as bar:
            for passage in passages:
                ids = array("i", [vocabulary.setdefault(term, len(vocabulary)) for term in terms(_looked_up(passage))])
                file.write(ids.tobytes())
                ends.append(ends[-1] + len(ids))
                if len(ends) % 1000 == 0:
                    bar.advance(1000)
        if not vocabulary:
            raise UserError("the corpus has no words to look up")
        index = bm25s().BM25(backend="numpy")
        rows = _Rows(np.asarray(np.memmap(folder / _TERMS, "i4", "r")), ends)
        index.scores = index.build_index_from_ids(range(len(vocabulary)), rows, show_progress=False)
        index.vocab_dict = vocabulary
        index.save(folder, show_progress=False)
        (folder / _TERMS).unlink()

    def load(self, passages: PassageStore, folder: Path) -> None:
        self._index = bm25s().BM25.load(folder, mmap=True, show_progress=False)
        scores = self._index.scores  # as plain arrays, whose slices are quick to make
        scores |= {name: np.asarray(scores[name]) for name in ("data", "indices", "indptr")}
        self._idf = _idf(np.diff(scores["indptr"]), len(passages))
        self._idf_of_unknown = float(_idf(np.zeros(1), len(passages))[0])

    def search(self, queries: Sequence[str], most: int) -> list[list[Found]]:
        return [self._search(query, most) for query in queries]

    def _search(self, query: str, most: int) -> list[Found]:
        words = list(dict.fromkeys(terms(query)))
        asked = [word for word in words if word not in _asking()] or words
        ids = self._index.get_tokens_ids(asked)
        if not ids:
            return []
        weights = [self._idf_of_unknown] * (len(asked) - len(ids)) + sorted(self._idf[ids].tolist(), reverse=True)
        largest = sum(weights[:HEAVIEST])
        scores = self._index.get_scores_from_ids(ids)
        found = np.flatnonzero(scores >= max(self._least * largest, 1e-6))
        if len(found) > most:
            found = found[scores[found] >= np.partition(scores[found], -most)[-most]]
        best = found[np.argsort(-scores[found], kind="stable")][:most].tolist()  # of equal ones the earlier first
        return [Found(i, round(float(scores[i]) / largest, 4)) for i in best]


class _Rows:
    """The terms of each passage, as the lists that bm25s goes through several times; they lie on the disk."""

    def __init__(self, flat: Any, ends: "array[int]") -> None:
        self._flat, self._ends = flat, ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[list[int]]:
        return (self._flat[self._ends[i] : self._ends[i + 1]].tolist() for i in range(len(self)))


def _looked_up(passage: Passage) -> str:
    """A passage with the title of its document twice, so that the article about a thing is found before those that
    mention it."""
    return f"{passage.title}\n{passage.titled}" if passage.title else passage.text


def _idf(passages_with_term: Any, passages: int) -> Any:
    """The weight of terms in Lucene's BM25, the default of bm25s."""
    return np.log1p((passages - passages_with_term + 0.5) / (passages_with_term + 0.5))


@cache
def _asking() -> frozenset[str]:
    """Terms that say how a question is asked, not what about."""
    return frozenset(terms(" ".join([_ASKING, *bm25s().stopwords.STOPWORDS_EN_PLUS])))
