"""What a stage did, beside what it made: ``<output>.meta.json``. It also tells a resumed run from a changed one."""

import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from maskdpo.console import warn
from maskdpo.errors import InputError, UserError
from maskdpo.io import atomic_write, open_input

PACKAGES = ("maskdpo", "torch", "transformers", "tokenizers", "vllm", "openai", "sentencex", "spacy", "nltk")


class RunMeta(BaseModel):
    """The record of one stage's run."""

    model_config = ConfigDict(extra="forbid")

    command: str
    options: dict[str, Any]
    """What decides the result. A run with other options does not continue this output."""
    inputs: dict[str, str]
    """SHA-256 of every input file, by its role."""
    versions: dict[str, str]
    status: Literal["running", "complete"] = "running"
    counts: dict[str, Any] = {}
    seconds: float = 0.0


class Run:
    """One run of a stage, recorded at its start (status ``running``) and at its end (``complete``).

    Args:
        file: the meta file.
        options: what decides the result; JSON values only.
        inputs: input files by role.
        restart: how the user begins anew, for the message when the options changed.
        fixed_inputs: whether a changed input file forbids to continue (else it is only pointed out).
    """

    def __init__(
        self,
        file: Path,
        command: str,
        options: Mapping[str, Any],
        inputs: Mapping[str, Path],
        *,
        restart: str,
        fixed_inputs: bool = False,
    ) -> None:
        self.file = file
        self.meta = RunMeta(
            command=command,
            options=dict(options),
            inputs={role: sha256_of(path) for role, path in inputs.items()},
            versions=_versions(),
        )
        self.previous = _read(file)
        if self.previous is not None:
            _check_same(self.previous, self.meta, file, restart, fixed_inputs)
        self._started = time.monotonic()

    def begin(self) -> None:
        """Write the record; called when the inputs have proved to be good."""
        self._write()

    def finish(self, counts: Mapping[str, Any]) -> None:
        self.meta.status = "complete"
        self.meta.counts = dict(counts)
        self.meta.seconds = round(time.monotonic() - self._started + (self.previous.seconds if self.previous else 0), 3)
        self._write()

    def _write(self) -> None:
        with atomic_write(self.file) as handle:
            handle.write(self.meta.model_dump_json(indent=2).encode() + b"\n")


def meta_file(output: Path) -> Path:
    return output.with_name(output.name + ".meta.json")


def set_aside(*files: Path) -> None:
    """Keep an earlier output as ``.bak`` (``.bak2`` ...) when a run begins anew: nothing is deleted."""
    for file in files:
        if file.exists():
            names = (file.with_name(f"{file.name}.bak{number}") for number in ("", *range(2, 1000)))
            file.rename(next(name for name in names if not name.exists()))


def sha256_of(path: Path) -> str:
    with open_input(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _read(file: Path) -> RunMeta | None:
    if not file.exists():
        return None
    try:
        return RunMeta.model_validate_json(file.read_bytes())
    except ValidationError:
        raise InputError("is not a record of a maskdpo run; move it away", path=file) from None


def _check_same(before: RunMeta, now: RunMeta, file: Path, restart: str, fixed_inputs: bool) -> None:
    keys = sorted(before.options.keys() | now.options.keys())
    changed = [
        f"{key}: {before.options.get(key)!r} -> {now.options.get(key)!r}"
        for key in keys
        if before.options.get(key) != now.options.get(key)
    ]
    inputs = [role for role, digest in now.inputs.items() if before.inputs.get(role) != digest]
    if fixed_inputs:
        changed += [f"the {role} file has changed" for role in inputs]
    if before.command != now.command or changed:
        what = "; ".join(changed) or f"it was made by {before.command!r}"
        raise UserError(f"{file}: an earlier run with other settings is recorded here ({what}). {restart}")
    for role in inputs:
        warn(f"the {role} file has changed since the run recorded in {file}; what is already done is kept")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
