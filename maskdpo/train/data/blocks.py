"""Pairs of a file to arrays, block by block: here for a small input, in several processes for a large one."""

import gc
import json
import os
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from maskdpo.errors import InputError, UserError
from maskdpo.io.blocks import Block, blocks, unpacked
from maskdpo.schemas import Pair
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encode import Drop, EncodedPair, Encoder

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
LARGE = 24_000_000
"""Bytes of an input from which on several processes encode it: to start one takes seconds."""
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
            _note(seen, item.record.id, item.line, block)
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
    )


def encoded_blocks(
    file: Path, encoder: Encoder, config: TrainConfig, today: date | None, limit: int | None
) -> Iterator[tuple[Block, Encoded]]:
    """All blocks of a pairs file in their order, of which the last one may be cut at ``limit`` records.

    Raises:
        InputError: the first record that is not valid, or whose id an earlier one has.
    """
    seen: dict[str, int] = {}
    with _encoding(file, config, today) as encode:
        for block, found in _in_order(blocks(file, Pair), encode):
            left = None if limit is None else limit - len(seen)
            if found is None or (left is not None and len(found.records) > left):
                yield block, encode_block(block, encoder, left, seen)  # here, where its error is raised
            else:
                for line, name in found.records:
                    _note(seen, name, line, block)
                yield block, found
            if limit is not None and len(seen) >= limit:
                return
    if not seen:
        raise InputError("the file holds no records", path=file)


def _note(seen: dict[str, int], name: str, line: int, block: Block) -> None:
    first = seen.setdefault(name, line)
    if first != line:
        raise InputError(f"duplicate id {name!r}, first on line {first}", path=block.shown, line=line, field="id")


Encode = Callable[[Block], Callable[[], Encoded | None]]
"""Begins to encode a block; what it returns waits for the result, which is None where that is left to the caller."""


def _in_order(found: Iterator[Block], encode: Encode) -> Iterator[tuple[Block, Encoded | None]]:
    """Blocks with what became of them; a few are under way, and an error of reading comes behind what precedes it."""
    under_way: deque[tuple[Block, Callable[[], Encoded | None]]] = deque()
    failure: InputError | None = None
    while True:
        try:
            while failure is None and len(under_way) < 2 * processes():
                block = next(found)
                under_way.append((block, encode(block)))
        except StopIteration:
            if not under_way:
                return
        except InputError as error:
            failure = error
        if under_way:
            block, result = under_way.popleft()
            yield block, result()
        elif failure is not None:
            raise failure


def processes() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _encoding(file: Path, config: TrainConfig, today: date | None) -> Iterator[Encode]:
    if processes() == 1 or not file.is_file() or file.stat().st_size < LARGE:
        yield lambda block: lambda: None
        return
    idle: SimpleQueue[_Process] = SimpleQueue()
    workers = [_Process(config, today) for _ in range(processes())]
    for worker in workers:
        idle.put(worker)

    def ask(block: Block) -> Encoded | None:
        worker = idle.get()
        try:
            return worker.encode(block)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(len(workers)) as threads:
        try:
            yield lambda block: threads.submit(ask, block).result
        finally:
            for worker in workers:
                worker.stop()
            threads.shutdown(cancel_futures=True)


class _Process:
    """Another process that encodes. It ends when its standard input does, so it does not outlive this one."""

    def __init__(self, config: TrainConfig, today: date | None) -> None:
        path = os.pathsep.join([*filter(None, sys.path), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "maskdpo.train.data.blocks"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | own, start_new_session=True,
        )  # fmt: skip
        self._given = {"config": config.model_dump(mode="json"), "today": today and today.isoformat()}
        self._told = False

    def encode(self, block: Block) -> Encoded | None:
        """None where this process could not."""
        packed = block.packed()
        if packed is None:
            return None
        assert self._process.stdin and self._process.stdout
        try:
            if not self._told:
                _send(self._process.stdin, self._given)
                self._told = True
            _send(self._process.stdin, *packed)
            answer = _received(self._process.stdout)
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise UserError(
                f"a process that encodes pairs has ended (exit code {self._process.wait()}), as the kernel does where "
                "memory runs out. Repeat the same command"
            )
        head, parts = answer
        if not head:
            return None
        return Encoded(
            [(line, name) for line, name in head["records"]],
            np.frombuffer(parts[0], ROW),
            np.frombuffer(parts[1], np.int32),
            np.frombuffer(parts[2], np.float32),
            parts[3],
            Counter(head["dropped"]),
            head["without_end"],
        )

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with suppress(BrokenPipeError):
                pipe.close()


def _send(pipe: IO[bytes], head: dict[str, Any], *parts: bytes) -> None:
    line = json.dumps({"head": head, "sizes": [len(part) for part in parts]}).encode() + b"\n"
    pipe.writelines([line, *parts])
    pipe.flush()


def _received(pipe: IO[bytes]) -> tuple[dict[str, Any], list[bytes]] | None:
    line = pipe.readline()
    if not line.endswith(b"\n"):
        return None
    told = json.loads(line)
    parts = [pipe.read(size) for size in told["sizes"]]
    return (told["head"], parts) if [len(part) for part in parts] == told["sizes"] else None


def serve(asked: IO[bytes], answers: IO[bytes]) -> None:
    """What the other process does: blocks in, arrays out; an empty answer for a block with a mistake in it."""
    from maskdpo.models import load_tokenizer
    from maskdpo.train.data.read import encoder_for

    first = _received(asked)
    if first is None:
        return
    config = TrainConfig.model_validate(first[0]["config"], by_name=True)
    today = first[0]["today"]
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    encoder = encoder_for(config, tokenizer, today and date.fromisoformat(today))
    gc.freeze()
    while (given := _received(asked)) is not None:
        try:
            found = encode_block(unpacked(given[0], given[1][0]), encoder)
        except UserError:  # the process that asked comes to the same error, in the order of the file
            _send(answers, {})
            continue
        head = {"records": found.records, "dropped": found.dropped, "without_end": found.without_end}
        _send(answers, head, *found.parts())


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a tokenizer prints must not get among the answers
    serve(sys.stdin.buffer, own)
