"""``maskdpo lineage``: from a model or a dataset back to the prompts, by the run records beside the outputs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from maskdpo.errors import InputError
from maskdpo.identity import fingerprint
from maskdpo.run_inputs import find_input, tidy
from maskdpo.run_record import RunMeta, changed_outputs, meta_file, read_meta, record_of, recorded_models
from maskdpo.settings import Option, Settings

State = Literal["unchanged", "changed", "moved", "missing", "unknown"]


class LineageSettings(Settings):
    """What ``maskdpo lineage`` can be told."""

    file: Annotated[Path, Option("A dataset, or the folder of a trained model.", argument=True)]
    as_json: Annotated[bool, Field(alias="json"), Option("Print JSON, with all options and versions.")] = False


@dataclass
class Node:
    """A file or a model folder, and the inputs that it was made from."""

    path: Path
    role: str = "output"
    state: State = "unchanged"
    """Whether it is still what the run that used it has read; ``unknown`` for models whose files are not recorded."""
    run: RunMeta | None = None
    """The record of the run that made it; None where nothing is recorded."""
    altered: dict[str, str] = field(default_factory=dict)
    """Outputs of that run, this file or others beside it, that are ``changed`` or ``missing`` now."""
    inputs: list["Node"] = field(default_factory=list)
    repeated: bool = False
    """Whether its inputs are left out, because they stand earlier in the tree: a chain of rounds, in each of which a
    model is both sampled and trained, would double with every round."""

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path.as_posix(),
            "role": self.role,
            "state": self.state,
            "run": self.run.model_dump() if self.run else None,
            "altered": self.altered,
            "repeated": self.repeated,
            "inputs": [node.as_json() for node in self.inputs],
        }


def trace(file: Path) -> Node:
    """The tree of everything that an output was made from.

    Raises:
        InputError: the file does not exist, or nothing is recorded about it.
    """
    if not file.exists():
        raise InputError("no such file or folder", path=file)
    node = _node(file, "output", "unchanged", (), set())
    if node.run is None:
        raise InputError(f"nothing is recorded about it: {meta_file(file).name} is missing", path=file)
    return node


def problems(node: Node) -> Iterator[str]:
    """What has changed since the runs, one line each."""
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


def _node(path: Path, role: str, state: State, above: tuple[Path, ...], shown: set[Path]) -> Node:
    """
    Args:
        above: ends a cycle, such as a model that was trained in its own folder.
        shown: what has its inputs in the tree already.
    """
    node = Node(path, role, state)
    if path.resolve() in above or not path.exists():
        return node
    record = record_of(path)
    node.run = read_meta(record) if record else None
    if record and node.run and path.resolve() in shown:
        node.repeated = True
    elif record and node.run:
        shown.add(path.resolve())
        node.altered = dict(changed_outputs(path, node.run))
        above = (*above, path.resolve())
        for input_role, digest in node.run.inputs.items():
            found, how = find_input(record.parent, node.run.paths.get(input_role), digest)
            node.inputs.append(_node(found, input_role, how, above, shown))
        for model in _models(record.parent, node.run):
            node.inputs.append(_node(*model, above, shown))
    return node


def _models(folder: Path, run: RunMeta) -> Iterator[tuple[Path, str, State]]:
    """The model that sampled, judged or was trained, and the reference of a training, as far as they are folders; a Hub
    id is only an option of the run."""
    for role, (name, recorded) in recorded_models(run).items():
        path = tidy(folder / run.folder / Path(name).expanduser())
        # recorded is the hash of a folder, or a Hub id, with its commit if that was known
        is_folder = recorded is not None and recorded.partition("@")[0] != name and name != "smollm2"
        if path.is_dir():
            same = recorded is not None and fingerprint(str(path), recorded) == recorded
            yield path, role, "unknown" if recorded is None else "unchanged" if same else "changed"
        elif is_folder:
            yield path, role, "missing"
