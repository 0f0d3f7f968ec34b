"""What a stage did, beside what it made: ``<output>.meta.json``. It also tells a resumed run from a changed one."""

import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from maskdpo.console import warn
from maskdpo.errors import InputError, UserError
from maskdpo.extras import versions
from maskdpo.io import atomic_write, identity, is_on_hub, open_input
from maskdpo.public import line_without_secrets, without_secrets

META_IN_FOLDER = "maskdpo_run.json"
"""The record inside an output that is a folder: a trained model."""
META_SUFFIX = ".meta.json"

SCHEMA_VERSION = 2
"""Of ``RunMeta``; one more whenever a field is added. Records of version 1 do not say so."""


class RunMeta(BaseModel):
    """The record of one stage's run."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    """The ``SCHEMA_VERSION`` of the maskdpo that wrote this record."""
    command: str
    options: dict[str, Any]
    """What decides the result. A run with other options does not continue this output."""
    inputs: dict[str, str]
    """SHA-256 of every input file, by its role; of a dataset on the Hub, its name and commit."""
    paths: dict[str, str] = {}
    """Where every input lay, relative to the folder of this record."""
    outputs: dict[str, str] = {}
    """SHA-256 of the finished files beside this record, by name. Nothing in a model folder, nor in old records."""
    folder: str = "."
    """Where the command ran, relative to the folder of this record: what its arguments are relative to."""
    command_line: Annotated[str, AfterValidator(line_without_secrets)] = ""
    arguments: Annotated[dict[str, Any], AfterValidator(without_secrets)] = {}
    """The command's arguments, where a pipeline called it; unlike ``options`` they also say how fast, and where to."""
    begun: str = ""
    """When this output was begun (UTC). A run that continues it keeps the time."""
    versions: dict[str, str]
    status: Literal["running", "complete"] = "running"
    counts: dict[str, Any] = {}
    seconds: float = 0.0

    @model_validator(mode="before")
    @classmethod
    def _without_fields_of_later_versions(cls, values: Any) -> Any:
        """A field that is unknown here is an error, except in the record of a later maskdpo, which may have more."""
        version = values.get("schema_version") if isinstance(values, dict) else None
        if not isinstance(version, int) or version <= SCHEMA_VERSION:
            return values
        return {name: value for name, value in values.items() if name in cls.model_fields}


class Run:
    """One run of a stage, recorded at its start (status ``running``) and at its end (``complete``).

    Args:
        file: the meta file.
        options: what decides the result; JSON values only.
        inputs: input files by role.
        restart: how the user begins anew, for the message when the options changed. None: the stage always makes its
            output anew, whatever an earlier record says.
        fixed_inputs: whether a changed input file forbids to continue (else it is only pointed out).
        defaults: what options mean that the record of an earlier maskdpo does not have yet.
        may_grow: an option, a number, that may be larger than in the run that is continued.
    """

    def __init__(
        self,
        file: Path,
        command: str,
        options: Mapping[str, Any],
        inputs: Mapping[str, Path],
        *,
        restart: str | None,
        fixed_inputs: bool = False,
        defaults: Mapping[str, Any] = MappingProxyType({}),
        may_grow: str | None = None,
    ) -> None:
        self.file = file
        command_line, arguments = _invocation.get() or (_own_command_line(), {})
        self._restart = restart
        self.meta = RunMeta(
            schema_version=SCHEMA_VERSION,
            command=command,
            options=dict(options),
            inputs={role: sha256_of(path) for role, path in inputs.items()},
            paths={role: relative_to_folder(path, file.parent) for role, path in inputs.items()},
            folder=relative_to_folder(Path.cwd(), file.parent),
            command_line=command_line,
            arguments=dict(arguments),
            begun=datetime.now(UTC).isoformat(timespec="milliseconds"),
            versions=versions(),
        )
        self.previous = read_meta(file) if restart is not None else None
        if self.previous is not None:
            self.previous.options = {**defaults, **self.previous.options}
            before = self.previous.options.get(may_grow) if may_grow else None
            if may_grow and isinstance(before, int):
                self.previous.options[may_grow] = max(before, options[may_grow])
        if self.previous is not None and restart is not None:
            changed = [role for role, digest in self.meta.inputs.items() if self.previous.inputs.get(role) != digest]
            same = self.previous
            if same.status == "complete" and same.schema_version < 2 and "prompt_date" in options:
                # not recorded then, and of no matter where nothing is left to do; if something is, ``begin`` refuses
                dated = {"prompt_date": options["prompt_date"], **same.options}
                same = same.model_copy(update={"options": dated})
            _check_same(same, self.meta, file, restart, changed if fixed_inputs else [])
            for role in changed:
                warn(f"the {role} file has changed since the run recorded in {file}; what is already done is kept")
            self.meta.begun = self.previous.begun or self.meta.begun
        self._started = time.monotonic()

    def begin(self, options: Mapping[str, Any] | None = None) -> None:
        """Write the record; called when the inputs have proved to be good.

        Args:
            options: those that could only be told when the model was loaded, which may have come from the Hub then.

        Raises:
            OtherSettings: they differ from those of the run that is continued.
        """
        self.meta.options |= options or {}
        if self.previous is not None and self._restart is not None:
            _check_same(self.previous, self.meta, self.file, self._restart, [])
        _write(self.file, self.meta.model_dump_json(indent=2))

    def finish(self, counts: Mapping[str, Any], outputs: Iterable[Path] | None = None) -> None:
        """Write the record of a finished run.

        Args:
            outputs: what it has made, in the folder of the record; those that are not there are left out. None: the
                file that the record is named after.
        """
        named = [self.file.with_name(self.file.name.removesuffix(META_SUFFIX))] if outputs is None else outputs
        files = [file for file in named if file != self.file and file.is_file()]
        self.meta.outputs = {file.name: sha256_of(file) for file in files}
        self.meta.status = "complete"
        self.meta.counts = dict(counts)
        self.meta.seconds = round(time.monotonic() - self._started + (self.previous.seconds if self.previous else 0), 3)
        _write(self.file, self.meta.model_dump_json(indent=2))


_invocation: ContextVar[tuple[str, Mapping[str, Any]] | None] = ContextVar("invocation", default=None)


@contextmanager
def invoked_as(command_line: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Runs inside are recorded as made by this command, not by that of the process: a pipeline calls many."""
    token = _invocation.set((command_line, arguments))
    try:
        yield
    finally:
        _invocation.reset(token)


class OtherSettings(UserError):
    """An output was made with other options than those that should continue it."""


def meta_file(output: Path) -> Path:
    return output / META_IN_FOLDER if output.is_dir() else output.with_name(output.name + META_SUFFIX)


def record_of(path: Path) -> Path | None:
    """The record of an output. Pairs of held-out topics are described by that of the others."""
    if meta_file(path).exists():
        return meta_file(path)
    beside = meta_file(path.with_name(path.name.replace(".test.", ".", 1)))
    meta = read_meta(beside)
    if meta is None or meta.command != "build-pairs":
        return None
    return beside if not meta.outputs or path.name in meta.outputs else None


def recorded_model(meta: RunMeta) -> tuple[str, str | None] | None:
    """The model of a run and the fingerprint of its files, None where that is not known; a judge calls it otherwise."""
    name = meta.options.get("model")
    if not isinstance(name, str):
        return None
    judged = meta.command == "annotate"
    files = meta.options.get("revision" if judged else "model_files")
    # a judge of one's own may call anything its revision
    return name, files if isinstance(files, str) and not (judged and meta.options.get("name") != "llm") else None


def set_aside(*files: Path) -> None:
    """Keep an earlier output as ``.bak`` (``.bak2`` ...) when a run begins anew: nothing is deleted.

    Of a symbolic link that is what it points to, so that the link leads to the new output.
    """
    for link in files:
        if link.exists():
            file = link.resolve()
            names = (file.with_name(f"{file.name}.bak{number}") for number in ("", *range(2, 1000)))
            file.rename(next(name for name in names if not name.exists()))


def sha256_of(path: Path) -> str:
    """Of a file's bytes, whatever is in it; for a folder or a dataset on the Hub, what ``io.identity`` says of it."""
    known = identity(path)
    if known is not None:
        return known
    with open_input(path, as_is=True) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def holds(path: Path, digest: str) -> bool:
    """Whether an input still is what a run has read."""
    try:
        return sha256_of(path) == digest
    except UserError:  # it is gone, or no longer anything that can be read
        return False


def changed_outputs(path: Path, meta: RunMeta) -> Iterator[tuple[str, Literal["changed", "missing"]]]:
    """Outputs that no longer are as a finished run has left them; ``path`` is one of them, renamed perhaps."""
    if meta.outputs and path.name not in meta.outputs:
        if not any(holds(path, digest) for digest in meta.outputs.values()):
            yield path.name, "changed"
        return
    for name, digest in meta.outputs.items():
        file = path.with_name(name)
        if not holds(file, digest):
            yield name, "changed" if file.exists() else "missing"


def relative_to_folder(path: Path, folder: Path) -> str:
    """A path as seen from a folder, for both may be moved together; a dataset on the Hub stays as it is."""
    if is_on_hub(path):
        return str(path)
    # where folders are symbolic links, ".." leads out of what they point to
    return Path(os.path.relpath(path.absolute().parent.resolve() / path.name, folder.resolve())).as_posix()


def _own_command_line() -> str:
    name = Path(sys.argv[0]).name
    return shlex.join(["maskdpo" if name == "__main__.py" else name, *sys.argv[1:]])


def read_meta(file: Path) -> RunMeta | None:
    """The record of a run, or None where there is none."""
    if not file.exists():
        return None
    try:
        return RunMeta.model_validate_json(file.read_bytes())
    except ValidationError:
        raise InputError("is not a record of a maskdpo run; move it away", path=file) from None


def recorded_option(file: Path, name: str) -> Any:
    """An option of the run that an output would continue; None where nothing is recorded."""
    meta = read_meta(file)
    return meta.options.get(name) if meta is not None else None


def note_arguments(file: Path, arguments: Mapping[str, Any]) -> None:
    """Keep the arguments of a command that found nothing left to do, so that the next one sees no change."""
    meta, clean = read_meta(file), without_secrets(dict(arguments))
    if meta is not None and meta.arguments != clean:
        # the record may be of another version, whose other fields are not to be touched
        _write(file, json.dumps(json.loads(file.read_bytes()) | {"arguments": clean}, indent=2, ensure_ascii=False))


def _write(file: Path, record: str) -> None:
    with atomic_write(file) as handle:
        handle.write(record.encode() + b"\n")


def _check_same(before: RunMeta, now: RunMeta, file: Path, restart: str, changed_inputs: list[str]) -> None:
    """Refuse to continue what was made with other options, or from other inputs where that is not allowed."""
    keys = sorted(before.options.keys() | now.options.keys())
    changed = [
        f"{key}: {before.options.get(key)!r} -> {now.options.get(key)!r}"
        for key in keys
        if before.options.get(key) != now.options.get(key)
    ]
    changed += [f"the {role} file has changed" for role in changed_inputs]
    if before.command != now.command or changed:
        what = "; ".join(changed) or f"it was made by {before.command!r}"
        raise OtherSettings(f"{file}: an earlier run with other settings is recorded here ({what}). {restart}")
