"""A pairs file to arrays, block by block: here for a small input, in several processes for a large one."""

import functools
import gc
import json
import os
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import numpy as np

from maskdpo.errors import InputError, UserError
from maskdpo.io.blocks import Block, blocks, unpacked
from maskdpo.models import load_tokenizer
from maskdpo.schemas import Pair
from maskdpo.train.data.blocks import ROW, Encoded, encode_block, note_id
from maskdpo.train.data.encode import Encoder

LARGE = 24_000_000
"""Bytes of an input for each process that encodes it: to start one takes seconds."""
FEW = 4096
"""Records of a limit up to which no other process is started."""
MOST = 16
"""Processes, however many cores there are: a container may have a share of them only, and each takes .3 GB."""


def encoded_blocks(
    file: Path, encoder: Encoder, limit: int | None, *, trust_remote_code: bool = False
) -> Iterator[tuple[Block, Encoded]]:
    """All blocks of a pairs file in their order, of which the last one may be cut at ``limit`` records.

    Args:
        trust_remote_code: whether other processes that encode may run code from the repository of the model.

    Raises:
        InputError: the first record that is not valid, or whose id an earlier one has.
    """
    seen: dict[str, int] = {}
    number = _processes_for(file, limit)
    with ExitStack() as stack:
        found: Iterator[tuple[Block, Encoded | None]]
        if number == 1:
            found = ((block, None) for block in blocks(file, Pair))
        else:
            given = {"encoder": encoder.packed(), "trust_remote_code": trust_remote_code}
            encode = stack.enter_context(_encoding_elsewhere(given, number))
            found = _in_order(blocks(file, Pair), encode, 2 * number)
        for block, encoded in found:
            left = None if limit is None else limit - len(seen)
            if encoded is None or (left is not None and len(encoded.records) > left):
                yield block, encode_block(block, encoder, left, seen)  # here, where its error is raised
            else:
                for line, name in encoded.records:
                    note_id(seen, name, line, block)
                yield block, encoded
            if limit is not None and len(seen) >= limit:
                return
    if not seen:
        raise InputError("the file holds no records", path=file)


def _processes_for(file: Path, limit: int | None) -> int:
    if not file.is_file() or (limit is not None and limit <= FEW):
        return 1
    return min(cores(), MOST, file.stat().st_size // LARGE + 1)


Encode = Callable[[Block], Callable[[], Encoded | None]]
"""Begins to encode a block; what it returns waits for the result, which is None where that is left to the caller."""


def _in_order(found: Iterator[Block], encode: Encode, ahead: int) -> Iterator[tuple[Block, Encoded | None]]:
    """Blocks with what became of them; ``ahead`` of them are under way, and an error of reading comes behind what
    precedes it."""
    under_way: deque[tuple[Block, Callable[[], Encoded | None]]] = deque()
    failure: InputError | None = None
    while True:
        try:
            while failure is None and len(under_way) < ahead:
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


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _encoding_elsewhere(given: dict[str, Any], number: int) -> Iterator[Encode]:
    idle: SimpleQueue[_Process] = SimpleQueue()
    workers = [_Process(given) for _ in range(number)]
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

    def __init__(self, given: dict[str, Any]) -> None:
        path = os.pathsep.join([*filter(None, sys.path), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            # -P: a random.py in the folder of the user is not Python's
            [sys.executable, "-P", "-m", "maskdpo.train.data.processes"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | own, start_new_session=True,
        )  # fmt: skip
        self._given = given
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
            raise UserError(_how_it_ended(self._process.wait()))
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
            head["took_today"],
        )

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with suppress(BrokenPipeError):
                pipe.close()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"a process that encodes pairs has failed (exit code {code}); what it has printed says why"
    return (
        f"a process that encodes pairs was ended by {signal.Signals(-code).name}, as the kernel does where memory runs "
        "out. Repeat the same command"
    )


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
    first = _received(asked)
    if first is None:
        return
    load = functools.partial(load_tokenizer, trust_remote_code=first[0]["trust_remote_code"])
    encoder = Encoder.unpacked(first[0]["encoder"], load)
    gc.freeze()
    while (given := _received(asked)) is not None:
        try:
            found = encode_block(unpacked(given[0], given[1][0]), encoder)
        except UserError:  # the process that asked comes to the same error, in the order of the file
            _send(answers, {})
            continue
        head = {name: getattr(found, name) for name in ("records", "dropped", "without_end", "took_today")}
        _send(answers, head, *found.parts())


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a tokenizer prints must not get among the answers
    serve(sys.stdin.buffer, own)
