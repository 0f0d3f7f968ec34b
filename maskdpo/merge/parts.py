"""Which outputs are the parts of one run."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from maskdpo.console import warn
from maskdpo.errors import InputError, UserError
from maskdpo.io.append import in_order
from maskdpo.merge.contents import RECORDS, Part, Whole, lines_of
from maskdpo.run_inputs import find_input, lone_parts, record_beside, shard_of
from maskdpo.run_record import RunMeta, read_meta
from maskdpo.shard import Shard, read_shard

MAY_DIFFER: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "prompt_date": (min, "began on different days and wrote these dates into their prompts"),
    "max_tokens": (max, "were sampled with different `max_tokens`, so answers were cut off at different lengths"),
}
"""Options that may differ among parts, as they may within one run, and every answer says its own: which value stands
for all of them, and what a warning says."""


def together(files: Sequence[Path], folder: Path) -> Whole:
    """The parts, if they are all parts of one run.

    Args:
        folder: where a merged input may lie, beside the places of its parts.
    """
    parts = sorted(map(_part, files), key=lambda part: part.shard.number)
    first = parts[0]
    for part, after in pairwise(parts):
        if part.file.resolve() == after.file.resolve():
            raise InputError("is given twice; give each part once", path=part.file)
        if part.shard == after.shard:
            raise InputError(f"is part {part.shard}, as {part.file} is; give each part once", path=after.file)
    for part in parts:
        if part.shard.of != first.shard.of:
            raise InputError(f"is part {part.shard}, and {first.file} is part {first.shard}", path=part.file)
        if part.meta.command != first.meta.command:
            message = f"is an output of `maskdpo {part.meta.command}`, {first.file} is one of {first.meta.command}"
            raise InputError(message, path=part.file)
        _check_options(first, part)
    if missing := sorted(set(range(1, first.shard.of + 1)) - {part.shard.number for part in parts}):
        names = ", ".join(f"{number}/{first.shard.of}" for number in missing)
        raise UserError(
            f"of {first.shard.of} parts these are missing: {names}. Give their outputs too; if there are none yet, "
            f"`maskdpo {first.meta.command}` with --shard {missing[0]}/{first.shard.of} makes one"
        )
    whole = Whole(parts, {role: _whole_input(role, parts, folder) for role in first.meta.inputs})
    _refuse_lone(whole)
    return whole


def _part(file: Path) -> Part:
    if not file.is_file():
        raise InputError("no such file", path=file)
    record = record_beside(file)
    meta = read_meta(record)
    if meta is None:
        raise InputError(f"its record {record.name} is missing, which says what the file is a part of", path=file)
    if meta.command not in RECORDS:
        raise InputError(f"is an output of `maskdpo {meta.command}`, which has no parts", path=file)
    if meta.status != "complete":
        raise InputError(f"is not complete; repeat its command: {meta.command_line}", path=file)
    shard = read_shard(meta.options.get("shard")) or _shard_of_responses(record, meta)
    if shard is None:
        raise InputError(
            f"is no part: `maskdpo {meta.command}` made it without --shard, or `maskdpo merge` out of parts", path=file
        )
    return Part(file, record, meta, shard)


def _shard_of_responses(record: Path, meta: RunMeta) -> Shard | None:
    """The shard of an output of ``annotate`` that was given the responses of this shard, and no ``shard``."""
    if "responses" not in meta.inputs:
        return None
    responses, _ = find_input(record.parent, meta.paths.get("responses"), meta.inputs["responses"])
    return shard_of(responses)


def _refuse_lone(whole: Whole) -> None:
    """Refuse parts which have all read the same answers where these are no more than one part themselves."""
    same = all(part.meta.inputs == whole.parts[0].meta.inputs for part in whole.parts)
    if same and (lone := lone_parts(whole.responses)):
        file, shard = next(iter(lone.items()))
        raise InputError(
            f"is only part {shard} of its run, and all of these have read it, so that the answers of the other parts "
            "are in none of them. Repeat the command of each part with the responses of its own part, or with those "
            "of all parts, which `maskdpo merge` makes",
            path=file,
        )


def _check_options(first: Part, part: Part) -> None:
    for key in sorted(first.meta.options.keys() | part.meta.options.keys()):
        before, here = first.meta.options.get(key), part.meta.options.get(key)
        if key not in ("shard", *MAY_DIFFER) and before != here and _with_commit(before, here) is None:
            again = first if before is None else part  # such as one that did not know the commit of its model
            raise InputError(
                f"is of another run than {first.file}: {key} is {here!r} here and {before!r} there. Parts need the "
                f"same options: repeat the command of {again.file} with those of the other part and with --restart, "
                f"which makes all of it anew. It was: {again.meta.command_line}",
                path=part.file,
            )


def _with_commit(one: Any, other: Any) -> str | None:
    """The longer of two names of one model on the Hub, of which a machine that has not loaded it knows no commit."""
    short, long = sorted((str(one), str(other)), key=len)
    return long if isinstance(one, str) and isinstance(other, str) and long.startswith(f"{short}@") else None


def options_of(metas: Sequence[RunMeta]) -> dict[str, Any]:
    """The options of the run without its shards."""
    options = {key: value for key, value in metas[0].options.items() if key != "shard"}
    for key in options:
        for meta in metas:
            options[key] = _with_commit(options[key], meta.options.get(key)) or options[key]
    for key, (chosen, what) in MAY_DIFFER.items():
        if values := sorted({meta.options[key] for meta in metas if key in meta.options}):
            options[key] = chosen(values)
            if len(values) > 1:
                warn(f"the parts {what}: {', '.join(map(str, values))}")
    return options


def _whole_input(role: str, parts: Sequence[Part], folder: Path) -> Path:
    """The input of all parts; where each part has read its own part of it, the merged file of these."""
    if stranger := next((part for part in parts if part.meta.inputs.keys() != parts[0].meta.inputs.keys()), None):
        roles = " and ".join(", ".join(part.meta.inputs) for part in (stranger, parts[0]))
        raise InputError(f"was made from other inputs than {parts[0].file}: {roles}", path=stranger.file)
    if len({part.meta.inputs[role] for part in parts}) == 1:
        return _unchanged(parts[0], role)
    files = [_unchanged(part, role) for part in parts]
    try:
        read = together(files, folder)
    except UserError as error:
        raise UserError(
            f"the parts have read different {role}: {', '.join(map(str, files))}. They are not the parts of one run "
            f"({error}). Repeat the commands of the parts with the same {role}: what they have is kept"
        ) from None
    with ExitStack() as stack:
        digest = hashlib.sha256()
        for line in in_order(*lines_of(read, stack)):
            digest.update(line)
    for near in dict.fromkeys((folder, *(file.parent for file in files))):
        merged, state = find_input(near, None, digest.hexdigest())
        if state == "moved":
            return merged
    raise UserError(
        f"each part has read the {role} of its own part, and no merged file of these lies beside them. Merge them "
        f"first: maskdpo merge {' '.join(map(str, files))} --out {folder / f'{role}.jsonl'}"
    )


def _unchanged(part: Part, role: str) -> Path:
    """Where an input of a part lies now."""
    path, state = find_input(part.record.parent, part.meta.paths.get(role), part.meta.inputs[role])
    if state in ("changed", "missing"):
        does = "has changed since" if state == "changed" else "is missing, and"
        raise InputError(
            f"{does} {part.file} was made from it. Put the {role} back, or repeat the commands of all parts with the "
            "new file: they keep what they have",
            path=path,
        )
    return path
