"""How the published files were made, from the run records beside them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskdpo.console import warn
from maskdpo.dataset.hub.data import Files
from maskdpo.errors import UserError
from maskdpo.io import is_on_hub
from maskdpo.run_record import RunMeta, meta_file, read_meta, sha256_of

ORDER = {"sample": 0, "annotate": 1, "calibrate": 2, "relabel": 3, "build-pairs": 4}


@dataclass(frozen=True)
class Origin:
    """What the run records say about the files."""

    steps: list[tuple[str, RunMeta]]
    """Name of the output and record of its run, in the order of the pipeline."""
    unrecorded: list[str]
    """Files without a record."""
    dropped: list[tuple[str, str, int]]
    """What made no pair: answers, prompts or pairs, the reason, and the number."""
    notes: list[str]
    """Files that do not fit together."""


def origin_of(files: Files, *, names: bool = False) -> Origin:
    """Follow the run records from the pairs back to the prompts.

    Args:
        names: also say how people decided: their command lines and files have their names.

    Raises:
        UserError: the run that writes one of the files is not finished.
    """
    steps: dict[Path, tuple[str, RunMeta]] = {}
    for file in files:
        for path, meta in _records(file):
            steps.setdefault(path.resolve(), (path.name, meta))
    for name, meta in steps.values():
        if meta.status != "complete":
            raise UserError(f"{name}: the run that makes it is not finished; repeat its command first")
    if not names:
        steps = {
            path: (name, meta.model_copy(update={"command_line": ""}) if meta.command == "gold" else meta)
            for path, (name, meta) in steps.items()
            if meta.command != "review"
        }
    notes = list(_notes(files))
    for note in notes:
        warn(note)
    pairs = steps.get(files.pairs.resolve())
    return Origin(
        steps=sorted(steps.values(), key=lambda step: (ORDER.get(step[1].command, -1), step[1].begun, step[0])),
        unrecorded=[file.name for file in files if file.resolve() not in steps],
        dropped=list(_dropped(pairs[1].counts if pairs else {})),
        notes=notes,
    )


def _records(file: Path) -> Iterator[tuple[Path, RunMeta]]:
    """The record of a file, and the records of those of its inputs that have not changed since."""
    meta = read_meta(meta_file(file))
    if meta is None:
        return
    yield file, meta
    for role, digest in meta.inputs.items():
        if role in meta.paths and not is_on_hub(Path(meta.paths[role])):
            path = file.parent / meta.paths[role]
            if path.is_file() and meta_file(path).exists() and sha256_of(path) == digest:
                yield from _records(path)


def _notes(files: Files) -> Iterator[str]:
    """Published files that are not the ones that the others were made from."""
    for output, inputs in ((files.annotations, {"prompts": files.prompts}), (files.pairs, files._asdict())):
        meta = read_meta(meta_file(output))
        for role, file in inputs.items():
            if meta and role in meta.inputs and meta.inputs[role] != sha256_of(file):
                yield f"{output.name} was made from other {role} than those in {file.name}"


def _dropped(counts: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    for what, key in (("answers", "dropped"), ("prompts", "without_pair"), ("pairs", "dropped")):
        part = counts.get(what)
        reasons = part.get(key) if isinstance(part, dict) else None
        for reason, number in (reasons or {}).items():
            yield what, reason.replace("_", " "), number
