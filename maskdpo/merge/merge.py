"""The settings of ``maskdpo merge``, and the function that it calls."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from maskdpo.errors import InputError
from maskdpo.io import atomic_write, read_records, refuse_overwriting, to_line
from maskdpo.io.append import Line, in_order, refuse_parquet
from maskdpo.io.lock import sole_writer
from maskdpo.merge.contents import lines_of
from maskdpo.merge.parts import options_of, together
from maskdpo.run_record import DIGITS, meta_file, refuse_replacing
from maskdpo.schemas import Response
from maskdpo.settings import Option, Settings, several
from maskdpo.stage_run import Run

RATES = ("sentences_per_second", "cached_share")
"""Counts of one run that are no sums."""


class MergeSettings(Settings):
    """What ``maskdpo merge`` can be told."""

    parts: Annotated[
        tuple[Path, ...],
        Field(min_length=1),
        several(None),
        Option("The outputs of all parts of one `--shard I/N`, in any order.", argument=True, metavar="PART..."),
    ]
    out: Annotated[Path, Option("The records of all parts, in the order of the input (JSONL).")]


@dataclass
class MergeStats:
    """What was put together."""

    command: str
    """Whose outputs these are: ``sample`` or ``annotate``."""
    parts: int
    records: int
    missing: int
    """Answers that ``sample`` did not get; the same command without ``shard`` asks for them again."""


def merge(parts: Sequence[Path], out: Path) -> MergeStats:
    """Write the records of all parts of one run into one file, in the order of the input, with the record of one run.

    Args:
        parts: outputs of ``sample`` or ``annotate`` with ``shard``, in any order. Where each part of ``annotate`` was
            given the responses of its part alone, these must be merged first.
        out: replaced only where the parts hold all that this file holds.

    Raises:
        UserError: a part is missing, there twice, not complete, or not of the same run.
    """
    refuse_overwriting(out, *parts)
    refuse_parquet(out)  # the command without shards goes on with it
    whole = together(parts, out.parent)
    first = whole.parts[0].meta
    refuse_replacing(out, whole.command, only_own=True)
    with sole_writer(out), ExitStack() as stack:
        lines, order = lines_of(whole, stack)
        _refuse_loss(out, lines, whole.model)
        options = options_of([part.meta for part in whole.parts])
        run = Run(meta_file(out), whole.command, options, whole.inputs, restart=None)
        run.add_up([part.meta for part in whole.parts])
        with atomic_write(out) as target:
            target.writelines(in_order(lines, order))
            run.begin()  # an earlier output and its record stand until the new one is complete
        run.finish(reduce(_summed, (part.meta.counts for part in whole.parts)))
    return MergeStats(first.command, len(whole.parts), len(lines), sum(record_id not in lines for record_id in order))


def _refuse_loss(out: Path, lines: Mapping[str, Line], model: type[Response]) -> None:
    """Refuse to replace an output that holds something which the parts do not hold."""
    if not out.exists() or not out.stat().st_size:
        return
    for record in read_records(out, model):
        if record.id not in lines or lines[record.id].read() != to_line(record):
            raise InputError(
                f"is there already, and its record {record.id!r} is not in the parts; name another output", path=out
            )


def _summed(one: Any, other: Any) -> Any:
    """Counts of two runs together, at any depth; rates are of one run alone."""
    if isinstance(one, dict) or isinstance(other, dict):
        one, other = one or {}, other or {}
        return {
            key: None if key in RATES else _summed(one.get(key), other.get(key))
            for key in dict.fromkeys((*one, *other))
        }
    if one is None or other is None:
        return other if one is None else one
    return round(one + other, DIGITS)
