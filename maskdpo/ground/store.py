"""The passages of a corpus on disk: written once, then mapped into memory, never read as a whole."""

import json
import os
import re
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskdpo.console import progress
from maskdpo.ground.corpus import Document
from maskdpo.io.lock import sole_writer
from maskdpo.run_folder import fresh_folder
from maskdpo.text.passages import BYTES_PER_WORD, pieces_of

TEXTS, PLACES, DOCUMENTS, ENDS, COUNTS = "texts.bin", "places.npy", "documents.bin", "documents.npy", "counts.json"
PLACE = np.dtype([("end", "<u8"), ("document", "<u4"), ("start", "<u4")])
"""Of a passage: where its bytes end in ``texts.bin``, the number of its document, and its first character there."""
_WORD = re.compile(r"\w")


@dataclass
class CorpusCounts:
    """What went into a store."""

    documents: int = 0
    without_text: int = 0
    """Documents that have no words."""
    passages: int = 0
    repeated: int = 0
    """Passages that were left out because the corpus has the same text before."""


class Passage(NamedTuple):
    """A part of a document, ``text == document[start:end]``."""

    text: str
    document: str
    title: str | None
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def titled(self) -> str:
        """The text below the title of its document, which may be the only place that says what the text is about."""
        return f"{self.title}\n{self.text}" if self.title else self.text


class PassageStore:
    """All passages of a corpus, by number. ``folder`` is where they lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts = CorpusCounts(**json.loads((folder / COUNTS).read_bytes()))
        # mapped, and seen as plain arrays, of which an element is quick to take
        self._places, self._document_ends = (np.asarray(np.load(folder / name, "r")) for name in (PLACES, ENDS))
        self._texts, self._documents = (np.asarray(np.memmap(folder / name, mode="r")) for name in (TEXTS, DOCUMENTS))
        self._document = lru_cache(1024)(self._read_document)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Passage]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> Passage:
        end, document, start = self._places[number].item()
        begin = int(self._places["end"][number - 1]) if number else 0
        name, title = self._document(document)
        return Passage(self._texts[begin:end].tobytes().decode(), name, title, start)

    def _read_document(self, number: int) -> tuple[str, str | None]:
        begin = int(self._document_ends[number - 1]) if number else 0
        name, title = json.loads(self._documents[begin : self._document_ends[number]].tobytes())
        return name, title


def write_store(folder: Path, documents: Iterable[Document], passage_words: int) -> CorpusCounts:
    """Cut documents into passages of at most so many words, and write them into an empty folder."""
    counts, seen = CorpusCounts(), set[int]()
    ends, numbers, starts, document_ends = array("Q"), array("I"), array("I"), array("Q")
    most, at = passage_words * BYTES_PER_WORD, 0
    with (
        (folder / TEXTS).open("wb") as texts,
        (folder / DOCUMENTS).open("wb") as names,
        progress("ground: reading documents", None, "passages") as bar,
    ):
        for document in documents:
            counts.documents += 1
            before = len(ends)
            spans = [(a, b) for a, b in pieces_of(document.text, most) if _WORD.search(document.text, a, b)]
            for start, end in spans:
                text = document.text[start:end]
                if (known := hash(text)) in seen:
                    counts.repeated += 1
                    continue
                seen.add(known)
                at += texts.write(text.encode(errors="replace"))
                ends.append(at)
                numbers.append(len(document_ends))
                starts.append(start)
            counts.without_text += not spans
            if len(ends) > before:
                names.write(json.dumps([document.name, document.title]).encode())
                document_ends.append(names.tell())
                bar.advance(len(ends) - before)
    counts.passages = len(ends)
    places = np.empty(len(ends), PLACE)
    places["end"], places["document"], places["start"] = ends, numbers, starts
    np.save(folder / PLACES, places)
    np.save(folder / ENDS, np.array(document_ends, dtype="<u8"))
    (folder / COUNTS).write_text(json.dumps(asdict(counts)))
    return counts


def made_once(folder: Path, write: Callable[[Path], object]) -> Path:
    """A folder that ``write`` has filled, now or in an earlier run. It appears whole or not at all.

    Raises:
        UserError: another process is filling it.
    """
    if folder.is_dir():
        return folder
    with sole_writer(folder):
        if not folder.is_dir():
            unfinished = fresh_folder(folder.parent, f".{folder.name}-")
            try:
                write(unfinished)
                for file in unfinished.iterdir():
                    _sync(file)
                unfinished.rename(folder)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
    return folder


def _sync(file: Path) -> None:
    """Wait until a file is on the disk: a power failure must not leave the name without the bytes."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
