"""A pairs file to token ids and weights, kept for the runs that follow."""

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from maskdpo import chat, prompt_date
from maskdpo.console import counted, progress, warn
from maskdpo.errors import InputError
from maskdpo.extras import versions
from maskdpo.io.text import is_plain
from maskdpo.models import cache_dir
from maskdpo.prompt_date import writes_date
from maskdpo.run_record import sha256_of
from maskdpo.train.data.blocks import Encoded
from maskdpo.train.data.encode import Encoder, encoder_for
from maskdpo.train.data.processes import encoded_blocks
from maskdpo.train.data.settings import EncodeSettings
from maskdpo.train.data.store import StoredPairs, is_stored, open_store
from maskdpo.train.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_pairs(
    file: Path,
    settings: EncodeSettings,
    tokenizer: "PreTrainedTokenizerBase",
    today: date | None = None,
    limit: int | None = None,
    *,
    trust_remote_code: bool = False,
    ranks: Ranks = ALONE,
    use_cache: bool = True,
    keep: bool = True,
) -> StoredPairs:
    """All pairs of a file that can be trained on; warnings count the others by reason.

    They are encoded once by the first rank, and kept in the cache folder for later runs. Every rank must call, and maps
    them into its memory. On a machine that does not share this folder its own first rank encodes them.

    Args:
        limit: read only so many pairs, the first ones.
        trust_remote_code: whether other processes that encode may run code from the repository of the model.
        use_cache: else the arrays are in a temporary folder, which is gone when all ranks have opened them.
        keep: else nothing is added to the cache.

    Raises:
        UserError: the file is no pairs file, the tokenizer will not do, or no pair is left.
    """
    encoder = encoder_for(settings, tokenizer, today)
    stamp = _stamp(file)
    with ExitStack() as stack:
        keys = ranks.from_first(_keys(file, encoder, tokenizer, today, limit) if ranks.first else None)
        assert keys is not None
        parent = cache_dir() / "pairs"
        if not use_cache or not (keep or ranks.from_first(any(is_stored(parent / key) for key in keys))):
            parent = Path(ranks.from_first(str(_temporary()) if ranks.first else ""))
            if ranks.first_here:
                stack.callback(shutil.rmtree, parent, ignore_errors=True)
        encode = functools.partial(_encoded, file, stamp, encoder, limit, trust_remote_code)
        stored = _in_turn(ranks, lambda: open_store(parent / keys.dated, parent / keys.undated, encode))
    if stored.without_end and settings.eos != "drop":
        warn(
            "behind an answer the chat template writes nothing that is one token of this tokenizer and ends the turn: "
            f"`eos` {settings.eos} has nothing to train"
        )
    for reason, count in stored.dropped.most_common():
        warn(f"{counted(count, 'pair')} left out: {reason.value}")
    return stored


def _in_turn(ranks: Ranks, make: Callable[[], StoredPairs]) -> StoredPairs:
    """The first rank makes what is missing, then the first one of every other machine; the others find it there."""
    found = None
    for turn in (ranks.first, ranks.first_here, True):
        if turn and found is None:
            found = make()
        ranks.wait()
    assert found is not None
    return found


def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="maskdpo-"))


def _encoded(
    file: Path, stamp: list[Any], encoder: Encoder, limit: int | None, trust_remote_code: bool
) -> Iterator[Encoded]:
    total = round(file.stat().st_size / 1e6) if file.is_file() and is_plain(file) and limit is None else None
    pairs, read = 0, 0.0
    with progress("encode", total, "MB" if total else "pairs") as bar:
        for block, found in encoded_blocks(file, encoder, limit, trust_remote_code=trust_remote_code):
            yield found
            pairs += len(found.records)
            before, read = read, read + block.size / 1e6
            bar.advance(int(read) - int(before) if total else len(found.records), f"{pairs} pairs" if total else "")
    if _stamp(file) != stamp:
        raise InputError("was changed while it was read; repeat the command", path=file)


def _stamp(file: Path) -> list[Any]:
    """Another one when an input is written to, as far as it is on this machine."""
    files = [each for each in [file, *(sorted(file.rglob("*")) if file.is_dir() else [])] if each.exists()]
    return [(str(each), each.stat().st_mtime_ns, each.stat().st_size) for each in files]


class Keys(NamedTuple):
    """The names of what the pairs of a file are encoded to."""

    dated: str
    """With the date of today, if the chat template writes one."""
    undated: str
    """Where every pair records its own date."""


def _keys(
    file: Path, encoder: Encoder, tokenizer: "PreTrainedTokenizerBase", today: date | None, limit: int | None
) -> Keys:
    """Hashes of all that decides what the pairs are encoded to."""
    written = str(tokenizer.chat_template)
    decides = {
        "sources": _sources(),
        "versions": {name: versions().get(name) for name in ("maskdpo", "transformers", "tokenizers")},
        "file": sha256_of(file),
        "limit": limit,
        "encoder": encoder.identity(),
        "template": written,
        "tokenizer": _without_state(tokenizer),
        # by name, too: templates write them
        "special": [tokenizer.all_special_ids, tokenizer.special_tokens_map, tokenizer.extra_special_tokens],
    }
    dates = (str(today or date.today()) if writes_date(written) else None, None)
    dumped = [json.dumps(decides | {"today": day}, sort_keys=True).encode() for day in dates]
    return Keys(*(hashlib.sha256(each).hexdigest()[:32] for each in dumped))


@functools.cache
def _sources() -> str:
    """A hash of the modules that turn pairs into tokens and weights, which change between versions too."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(chat.__file__), Path(prompt_date.__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _without_state(tokenizer: "PreTrainedTokenizerBase") -> list[Any]:
    """The class and the whole definition of a fast tokenizer, without what calls of it change."""
    written = json.loads(tokenizer.backend_tokenizer.to_str())
    own = {name: part for name, part in written.items() if name not in ("truncation", "padding")}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    return [type(tokenizer).__name__, digest, bool(tokenizer.split_special_tokens)]
