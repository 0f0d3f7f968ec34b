"""One part of an input, by a hash of the prompts' ids: what ``--shard I/N`` of ``sample`` and ``annotate`` names."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, PlainSerializer

from maskdpo.settings import Option

R = TypeVar("R")


@dataclass(frozen=True)
class Shard:
    """Part ``number``, from 1, of ``of`` parts. Written ``1/2``."""

    number: int
    of: int

    def holds(self, prompt_id: str) -> bool:
        """Whether a prompt, and with it every answer to it, is in this part."""
        return part_of(prompt_id, self.of) == self.number

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def part_of(prompt_id: str, parts: int) -> int:
    """The number of the part, from 1. The id alone decides, so growing data moves no prompt."""
    digest = hashlib.blake2b(prompt_id.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % parts + 1


def in_shard(records: Iterable[R], shard: Shard | None, prompt_of: Callable[[R], str]) -> Iterator[R]:
    """The records whose prompts are in this part; all of them without one.

    Args:
        prompt_of: the id of the prompt of a record.
    """
    return (record for record in records if shard is None or shard.holds(prompt_of(record)))


def read_shard(given: Any) -> Any:
    """A shard out of ``I/N``.

    Raises:
        ValueError: the text has another form, or I is not from 1 to N.
    """
    if not isinstance(given, str):
        return given
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", given)
    number, of = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= of:
        raise ValueError(f"{given!r} is not of the form I/N, with I from 1 to N, such as 1/8")
    return Shard(number, of)


ShardOption = Annotated[
    Annotated[Shard, BeforeValidator(read_shard), PlainSerializer(str)] | None,
    Option(
        "Only part I of N of the input, by a hash of the prompts' ids: every part is an output of its own, and "
        "`maskdpo merge` makes one of them. With `limit`: what of the first records is in this part.",
        metavar="I/N",
    ),
]
