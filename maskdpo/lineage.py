"""``maskdpo lineage``: from a model or a dataset back to the prompts, out of the records beside the outputs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from maskdpo.errors import InputError
from maskdpo.identity import fingerprint
from maskdpo.io import is_on_hub
from maskdpo.run_record import RunMeta, changed_outputs, holds, meta_file, read_meta, record_of, recorded_model
from maskdpo.settings import Option, Settings

State = Literal["unchanged", "changed", "moved", "missing", "unknown"]

SUFFIXES = (".jsonl", ".json", ".parquet")
NEIGHBOURS = 500
"""So many files of a folder are read at most, in search of one that was moved."""


class LineageSettings(Settings):
    """What ``maskdpo lineage`` can be told."""

    file: Annotated[Path, Option("A dataset, or the folder of a trained model.", argument=True)]
    as_json: Annotated[bool, Field(alias="json"), Option("Print JSON, with all options and versions.")] = False


@dataclass
class Node:
    """A file or a model folder, and what it was made from."""

    path: Path
    role: str = "output"
    state: State = "unchanged"
    """Whether it is still what the run that used it had read; ``unknown`` for models whose files were not recorded."""
    run: RunMeta | None = None
    """How it was made; None where nothing is recorded."""
    altered: dict[str, str] = field(default_factory=dict)
    """Files beside it, or itself, that no longer are as that run has left them: ``changed`` or ``missing``."""
    inputs: list["Node"] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path.as_posix(),
            "role": self.role,
            "state": self.state,
            "run": self.run.model_dump() if self.run else None,
            "altered": self.altered,
            "inputs": [node.as_json() for node in self.inputs],
        }


def trace(file: Path) -> Node:
    """The whole tree behind an output.

    Raises:
        InputError: there is no such file, or nothing is recorded about it.
    """
    if not file.exists():
        raise InputError("no such file or folder", path=file)
    node = _node(file, "output", "unchanged", ())
    if node.run is None:
        raise InputError(f"nothing is recorded about it: {meta_file(file).name} is missing", path=file)
    return node


def problems(node: Node) -> Iterator[str]:
    """What no longer is as the runs have found it, one line each."""
    for child in node.inputs:
        if child.state == "changed":
            yield f"{child.path}: has changed since {node.path} was made from it"
        elif child.state == "missing":
            yield f"{child.path}: is missing; {node.path} was made from it"
        yield from problems(child)
    if node.run and node.run.status == "running":
        yield f"{node.path}: is not finished"
    for name, how in node.altered.items():
        does = "has changed" if how == "changed" else "is missing"
        yield f"{node.path.with_name(name)}: {does} since {node.run.command if node.run else 'a run'} made it"


def _node(path: Path, role: str, state: State, above: tuple[Path, ...]) -> Node:
    """``above`` ends a circle: a model that was trained in its own folder, say."""
    node = Node(path, role, state)
    if path.resolve() in above or not path.exists():
        return node
    record = record_of(path)
    node.run = read_meta(record) if record else None
    if record and node.run:
        node.altered = dict(changed_outputs(path, node.run))
        above = (*above, path.resolve())
        for input_role, digest in node.run.inputs.items():
            found, how = _find(record.parent, node.run.paths.get(input_role), digest)
            node.inputs.append(_node(found, input_role, how, above))
        model = _model(record.parent, node.run)
        if model:
            node.inputs.append(_node(*model, above))
    return node


def _find(folder: Path, recorded: str | None, digest: str) -> tuple[Path, State]:
    """An input where it was, or, under another name, beside there or beside the output."""
    if is_on_hub(Path(digest)):
        return Path(digest), "unchanged"  # a commit stays what it is
    at = _tidy(folder / recorded) if recorded else None
    if at and holds(at, digest):
        return at, "unchanged"
    folders = {folder, at.parent} if at else {folder}
    for file in _neighbours(folders):
        if holds(file, digest):
            return file, "moved"
    if at and at.exists():
        return at, "changed"
    return at or Path(f"sha256:{digest[:12]}"), "missing"


def _neighbours(folders: set[Path]) -> Iterator[Path]:
    for folder in sorted(folders):
        if folder.is_dir():
            files = (file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES and file.is_file())
            yield from islice(files, NEIGHBOURS)


def _model(folder: Path, run: RunMeta) -> tuple[Path, str, State] | None:
    """The model that sampled, judged or was trained, if it is a folder; a Hub id stays among the options."""
    known = recorded_model(run)
    if known is None:
        return None
    name, recorded = known
    path = _tidy(folder / run.folder / Path(name).expanduser())
    if not path.is_dir():
        # what is recorded of a folder is a hash, of a Hub id the id itself, with its commit where that was known
        is_folder = recorded is not None and recorded.partition("@")[0] != name and name != "smollm2"
        return (path, "model", "missing") if is_folder else None
    if recorded is None:
        return path, "model", "unknown"
    return path, "model", "unchanged" if fingerprint(str(path), recorded) == recorded else "changed"


def _tidy(path: Path) -> Path:
    """Without ``..``, and from the current folder where the path lies below it."""
    whole, here = path.resolve(), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole
