"""Encoded pairs on disk, mapped into memory: what is read of them is in the page cache, which all processes share.

A folder of flat arrays, one behind the other: of every pair a row (``blocks.ROW``), its token ids, the weights of its
answers and its id. Its name is a hash of all that decides what is in it. It appears by one rename, so that it is whole
or not there.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

from maskdpo.errors import UserError
from maskdpo.io import atomic_write
from maskdpo.io.lock import sole_writer
from maskdpo.io.write import sync_folder
from maskdpo.models import cache_dir
from maskdpo.train.data.blocks import PARTS, ROW, Encoded
from maskdpo.train.data.encoded_pair import Drop, EncodedPair, EncodedSide

META = "meta.json"
PARTIAL = ".part"
SIZES = (ROW.itemsize, 4, 4, 1)
"""Bytes of an element of each of ``PARTS``."""


class StoredPairs(Sequence[EncodedPair]):
    """The pairs of a folder that ``write_store`` has made. A pair is put together when it is asked for.

    Raises:
        ValueError: the folder holds something else, or a part of it is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            meta = json.loads((folder / META).read_bytes())
            sizes = [(folder / name).stat().st_size for name in PARTS]
            self.key, self.tokens_digest = str(meta["key"]), str(meta["tokens_digest"])
            self.dropped = Counter({Drop[name]: count for name, count in meta["dropped"].items()})
            self.without_end = int(meta["without_end"])
            whole = self.key == folder.name and sizes == meta["sizes"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder}: holds no encoded pairs") from error
        if not whole:
            raise ValueError(f"{folder}: is not whole")
        self._rows = np.array(_mapped(folder / "rows", ROW))
        self._ids, self._weights = (_mapped(folder / name, kind) for name, kind in (("ids", "<i4"), ("weights", "<f4")))
        self._names = _mapped(folder / "names", "u1")
        self.lengths = np.stack([self._rows[part] for part in ("prompt", "chosen", "rejected")], 1).astype(np.int64)
        """[N, 3] tokens of the prompt and of both answers."""
        self.answer_ends = self.lengths[:, 1:].sum(1).cumsum()
        """[N] where the answers of each pair end among those of all."""
        self._id_ends = self.lengths.sum(1).cumsum()
        self._name_ends = self._rows["name"].cumsum(dtype=np.int64)
        self._by_hash: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        """The sorted hashes of the ids, and the index of each: a dictionary would take ten times the memory."""

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> EncodedPair: ...
    @overload
    def __getitem__(self, index: slice) -> list[EncodedPair]: ...
    def __getitem__(self, index: int | slice) -> EncodedPair | list[EncodedPair]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        prompt, chosen, rejected = self.lengths[i].tolist()
        ids = self._ids[self._id_ends[i] - prompt - chosen - rejected : self._id_ends[i]].astype(np.int64)
        weights = self._weights[self.answer_ends[i] - chosen - rejected : self.answer_ends[i]]
        name = self._names[self._name_ends[i] - self._rows["name"][i] : self._name_ends[i]].tobytes().decode()
        return EncodedPair(
            name,
            ids[:prompt],
            EncodedSide(ids[prompt : prompt + chosen], np.array(weights[:chosen])),
            EncodedSide(ids[prompt + chosen :], np.array(weights[chosen:])),
            float(self._rows["weight"][i]),
            float(self._rows["gap"][i]),
        )

    def index_of(self, name: str) -> int:
        """The index of the pair with this id.

        Raises:
            KeyError: there is none.
        """
        if self._by_hash is None:
            names = self._names.tobytes()
            begins = (self._name_ends - self._rows["name"]).tolist()
            hashes = [hash(names[begin:end]) for begin, end in zip(begins, self._name_ends.tolist(), strict=True)]
            order = np.argsort(hashes, kind="stable")
            self._by_hash = np.array(hashes, dtype=np.int64)[order], order
        hashes_N, order = self._by_hash
        wanted = name.encode()
        at = int(np.searchsorted(hashes_N, hash(wanted)))
        while at < len(order) and hashes_N[at] == hash(wanted):
            i = int(order[at])
            if self._names[self._name_ends[i] - self._rows["name"][i] : self._name_ends[i]].tobytes() == wanted:
                return i
            at += 1
        raise KeyError(name)

    @property
    def largest_id(self) -> int:
        return max(int(self._ids[at : at + CHUNK].max()) for at in range(0, len(self._ids), CHUNK))

    def kept(self) -> NDArray[np.int64]:
        """[N, 2] answer tokens with weight."""
        cuts = np.stack([self.answer_ends - self.lengths[:, 2], self.answer_ends], 1).ravel()
        found, begin = np.empty(len(cuts), dtype=np.int64), 0
        for i, end in enumerate(cuts.tolist()):
            found[i] = np.count_nonzero(self._weights[begin:end])
            begin = end
        return found.reshape(-1, 2)


CHUNK = 1 << 22
"""Elements of an array that are read at once where all are."""


def _mapped(file: Path, dtype: Any) -> NDArray[Any]:
    return np.memmap(file, dtype, "r") if file.stat().st_size else np.empty(0, dtype)


def write_store(folder: Path, blocks: Iterable[Encoded], undated: Path | None = None) -> Path:
    """Write encoded pairs into a new folder, whose name is their key.

    Args:
        undated: the folder instead where every pair records its own date.

    Raises:
        UserError: it cannot be written; no pair is left.
    """
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        partial.mkdir(parents=True)
        pairs, dropped, without_end, took_today = 0, Counter[str](), 0, False
        digest = hashlib.sha256()
        with ExitStack() as stack:
            files = [stack.enter_context(_file(partial / name)) for name in PARTS]
            for block in blocks:
                for file, part in zip(files, block.parts(), strict=True):
                    file.write(part)
                # the tokens and ids of the pairs, whatever the weights
                lengths = np.stack([block.rows[name] for name in ("prompt", "chosen", "rejected", "name")])
                for part in (lengths.tobytes(), block.ids.tobytes(), block.names):
                    digest.update(part)
                pairs += len(block.rows)
                dropped += block.dropped
                without_end += block.without_end
                took_today |= block.took_today
            for file in files:
                file.flush()
                os.fsync(file.fileno())
            sizes = [file.tell() for file in files]
        if not pairs:
            reasons = "; ".join(f"{count}: {Drop[name].value}" for name, count in dropped.most_common())
            raise UserError(f"no pair can be trained on ({reasons})")
        folder = folder if took_today or undated is None else undated
        meta = {
            "key": folder.name,
            "sizes": sizes,
            "tokens_digest": digest.hexdigest(),
            "dropped": dropped,
            "without_end": without_end,
        }
        with atomic_write(partial / META) as handle:
            handle.write(json.dumps(meta).encode())
        _rename(partial, folder)
        sync_folder(folder.parent)
        return folder
    except OSError as error:
        raise UserError(
            f"{folder.parent}: the encoded pairs cannot be written: {error.strerror}. "
            f"Set {variable_of(folder)} to a folder with room for 8 bytes per token"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    file = path.open("wb")
    try:
        yield file
    finally:
        with suppress(OSError):  # a full disk has raised its error before; to close flushes again
            file.close()


def _rename(partial: Path, folder: Path) -> None:
    """Another process may have made the folder since, where there are no locks."""
    if is_stored(folder):
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        partial.rename(folder)
    except OSError:
        if not is_stored(folder):
            raise


def variable_of(folder: Path) -> str:
    """The environment variable that decides where a folder of encoded pairs or log-probs is."""
    return "MASKDPO_CACHE" if folder.is_relative_to(cache_dir()) else "TMPDIR"


def is_stored(folder: Path) -> bool:
    """Whether ``write_store`` has made this folder, and it is whole."""
    try:
        StoredPairs(folder)
    except ValueError:
        return False
    return True


def open_store(folder: Path, undated: Path, blocks: Callable[[], Iterator[Encoded]]) -> StoredPairs:
    """The pairs of a folder, which is made where neither is there and whole; another process that needs it waits.

    Args:
        undated: the folder of the same pairs where every one records its own date.
    """

    def found() -> Path | None:
        return next((each for each in (undated, folder) if is_stored(each)), None)

    known = found()
    if known is None:
        with sole_writer(folder, "another run is encoding these pairs; waiting for it ...") as is_locked:
            known = found()
            if known is None:
                if is_locked:  # nobody is writing what killed runs have left
                    for left in folder.parent.glob(f"{folder.name}.*{PARTIAL}"):
                        shutil.rmtree(left, ignore_errors=True)
                known = write_store(folder, blocks(), undated)
    return StoredPairs(known)
