"""The records of an input in blocks, each of which another process can parse: lines of text, or rows of tables."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from maskdpo.errors import InputError
from maskdpo.io.read import Located, R, parsed_lines, parsed_rows, refuse_table
from maskdpo.io.sources import rows_of, tables_of
from maskdpo.io.text import numbered_lines
from maskdpo.schemas import FileRecord

LINES_BYTES, ROWS = 1_000_000, 200
"""Size of a block: about so many bytes of lines, or so many rows."""


class Block(NamedTuple):
    """Lines or rows that follow each other."""

    shown: Path
    """The name of the input in errors."""
    first: int
    """The number of the first one, counted from 1."""
    items: list[Any]
    """Lines as bytes; or rows, or what is wrong with them."""
    is_table: bool

    @property
    def size(self) -> int:
        """Bytes of lines; 0 of rows."""
        return 0 if self.is_table else sum(map(len, self.items))

    def located(self, model: type[R]) -> Iterator[Located[R] | InputError]:
        """As ``io.scan``, but ids are not compared."""
        parse = parsed_rows if self.is_table else parsed_lines
        return parse(enumerate(self.items, self.first), self.shown, model)

    def packed(self) -> tuple[dict[str, Any], bytes] | None:
        """What ``unpacked`` takes; None where another process cannot be sent it."""
        head = {"shown": str(self.shown), "first": self.first, "is_table": self.is_table}
        try:
            return head, json.dumps(self.items).encode() if self.is_table else b"".join(self.items)
        except TypeError:  # the error of a row, or a value that JSON has not
            return None


def unpacked(head: dict[str, Any], data: bytes) -> Block:
    items = json.loads(data) if head["is_table"] else _lines(data)
    return Block(Path(head["shown"]), head["first"], items, head["is_table"])


def _lines(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def blocks(path: Path, model: type[FileRecord]) -> Iterator[Block]:
    """All of an input.

    Raises:
        InputError: it cannot be read from some line on; what precedes has been given then.
    """
    tables = tables_of(path, model)
    if tables is not None:
        rows, first = rows_of(tables, model), 1
        while items := list(islice(rows, ROWS)):
            yield Block(tables.shown, first, items, True)
            first += len(items)
        return
    refuse_table(path)
    begin, lines, size = 1, [], 0
    failure = None
    numbered = numbered_lines(path)
    while True:
        try:
            number, line = next(numbered)
        except StopIteration:
            break
        except InputError as error:
            failure = error
            break
        lines.append(line)
        size += len(line)
        if size >= LINES_BYTES:
            yield Block(path, begin, lines, False)
            begin, lines, size = number + 1, [], 0
    if lines:
        yield Block(path, begin, lines, False)
    if failure is not None:
        raise failure
