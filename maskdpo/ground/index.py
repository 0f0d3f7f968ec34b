"""The index of a corpus: its passages and what a retriever has made of them, once, in the cache folder."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from maskdpo import registry
from maskdpo.console import warn
from maskdpo.errors import InputError, UserError
from maskdpo.ground.corpus import corpus_files, documents, listed
from maskdpo.ground.retriever import RETRIEVERS, Retriever
from maskdpo.ground.settings import GroundSettings
from maskdpo.ground.store import PassageStore, made_once, write_store
from maskdpo.models import cache_dir
from maskdpo.run_record import sha256_of

STORE = "1"
"""Changes with how documents are read, cut into passages, or stored."""


class Index(NamedTuple):
    """What can be looked up."""

    passages: PassageStore
    retriever: Retriever


def make_retriever(settings: GroundSettings) -> Retriever:
    """The retriever that the settings name.

    Raises:
        UserError: there is none, or its options do not fit.
    """
    name = settings.retriever
    made: Retriever = registry.make("retriever", name, RETRIEVERS[name], settings.retriever_options)
    if missing := [part for part in ("version", "build", "load", "search") if not hasattr(made, part)]:
        raise UserError(f"`retriever` {name}: {type(made).__name__} is no retriever: it has no {missing[0]!r}")
    return made


def open_index(settings: GroundSettings, retriever: Retriever) -> Index:
    """The index of a corpus, out of the cache folder; it is made first if this corpus has not been looked up before.

    The index is found by the contents of the corpus: documents that have changed are another corpus.

    Raises:
        InputError: the corpus holds no documents, or one of them cannot be read.
    """
    corpus = list(map(str, settings.corpus))
    files, others = corpus_files(settings.corpus)
    if others:
        warn(f"{', '.join(corpus)}: files that are not read: {listed(others)}")
    contents = [[Path(name).name, sha256_of(part)] for name, part in zip(corpus, settings.corpus, strict=True)]
    key = _hash(STORE, contents, settings.passage_words, settings.text_column)

    def write(folder: Path) -> None:
        counts = write_store(folder, documents(files, settings.text_column), settings.passage_words)
        if not counts.passages:
            raise InputError(f"holds no text ({counts.documents:,} documents)", path=settings.corpus[0])

    store = PassageStore(made_once(cache_dir() / "ground" / key, write))
    folder = store.folder.with_name(f"{key}-{_hash(settings.retriever, retriever.version)[:12]}")
    retriever.load(store, made_once(folder, lambda folder: retriever.build(store, folder)))
    return Index(store, retriever)


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
