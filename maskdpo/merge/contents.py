"""What the parts of a run hold, beside what one run would hold."""

import hashlib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from maskdpo.console import counted, warn
from maskdpo.errors import InputError
from maskdpo.io import open_input, read_records
from maskdpo.io.append import Line, lines_by_id
from maskdpo.run_record import RunMeta
from maskdpo.sample import response_id
from maskdpo.schemas import Annotation, Prompt, Response
from maskdpo.shard import Shard, part_of

RECORDS: dict[str, type[Response]] = {"sample": Response, "annotate": Annotation}
"""What the commands that know shards write; an annotation is a response with its sentences."""


class Part(NamedTuple):
    """The output of one shard, with its record."""

    file: Path
    record: Path
    meta: RunMeta
    shard: Shard


class Whole(NamedTuple):
    """All parts of one run, by their number."""

    parts: list[Part]
    inputs: dict[str, Path]
    """What the run as a whole reads, by role."""

    @property
    def command(self) -> str:
        return self.parts[0].meta.command

    @property
    def responses(self) -> list[Path]:
        """The answers that ``annotate`` has read."""
        return [path for role, path in self.inputs.items() if role.partition("-")[0] == "responses"]

    @property
    def model(self) -> type[Response]:
        return RECORDS[self.command]


def lines_of(whole: Whole, stack: ExitStack) -> tuple[dict[str, Line], dict[str, int]]:
    """Where the lines of all parts are, by id; and the ids that one run would write, in its order, with their parts."""
    of = len(whole.parts)
    order = {record_id: part_of(prompt_id, of) for record_id, prompt_id in _expected(whole)}
    lines: dict[str, Line] = {}
    for part in whole.parts:
        source = stack.enter_context(open_input(part.file))
        _notice_changes(part, source, whole.model)
        own = dict(lines_by_id(source, whole.model))
        if foreign := next((one for one in own if order.get(one, part.shard.number) != part.shard.number), None):
            raise InputError(f"holds {foreign!r}, which belongs to part {order[foreign]}/{of}", path=part.file)
        _check_counts(part, own.keys(), [one for one, number in order.items() if number == part.shard.number])
        lines |= own
    return lines, order


def _expected(whole: Whole) -> Iterator[tuple[str, str]]:
    """The ids of the records that one run would write, in its order, each with the id of its prompt."""
    if whole.command == "sample":
        for prompt in read_records(whole.inputs["prompts"], Prompt):
            for i in range(whole.parts[0].meta.options["n"]):
                yield response_id(prompt.id, i), prompt.id
        return
    for response in read_records(whole.responses, Response):
        yield response.id, response.prompt_id


def _notice_changes(part: Part, source: BufferedReader, model: type[Response]) -> None:
    """Check the records of a file that is no longer what its run has written; those of a run are valid."""
    digest = hashlib.file_digest(source, "sha256").hexdigest()
    source.seek(0)
    if digest not in part.meta.outputs.values():
        warn(f"{part.file}: has changed since its run made it")
        for _ in read_records(part.file, model):
            pass


def _check_counts(part: Part, held: AbstractSet[str], expected: Sequence[str]) -> None:
    """Refuse a part that has not been asked for all of its records, or has lost some."""
    counts, missing = part.meta.counts, sum(record_id not in held for record_id in expected)
    if part.meta.command == "sample":
        n = part.meta.options["n"]
        asked, failed = counts["prompts"] * n, counts["failed"] * n + counts["failed_answers"]
    else:
        asked, failed = counts["responses"], 0
    if asked != len(expected) or missing > failed:
        raise InputError(
            f"holds {len(expected) - missing:,} of the {counted(len(expected), 'record')} of part {part.shard}; repeat "
            f"its command without --limit to make the others: {part.meta.command_line}",
            path=part.file,
        )
