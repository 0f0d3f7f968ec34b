"""One run of a stage, and not the command ``run`` (``commands/pipeline.py``). It writes the record beside its output,
and says whether it may continue what is there."""

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from maskdpo.console import say, warn
from maskdpo.errors import CannotContinue, UserError
from maskdpo.extras import versions
from maskdpo.io import atomic_write, is_on_hub
from maskdpo.redact import without_secrets
from maskdpo.run_record import META_SUFFIX, SCHEMA_VERSION, RunMeta, Spent, is_fixed, read_meta, sha256_of

_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
"""A SHA-256, and the digits of it that people are shown."""


class Run:
    """One run of a stage, recorded at its start (status ``running``) and at its end (``complete``).

    Args:
        file: the file of the record.
        options: the options that decide the result, as JSON values.
        inputs: input files by role.
        restart: what the user can do when the options have changed, for the error. None: the stage always makes its
            output again, whatever an earlier record says.
        defaults: values of options that the records of earlier versions do not have.
        may_grow: the name of an option, a number, that may be larger than in the run that is continued.
    """

    def __init__(
        self,
        file: Path,
        command: str,
        options: Mapping[str, Any],
        inputs: Mapping[str, Path],
        *,
        restart: str | None,
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
        self.inputs_changed: list[str] = []
        """The roles of the inputs that are not what the run that is continued has read."""
        if self.previous is not None:
            self.previous.options = {**defaults, **self.previous.options}
            before = self.previous.options.get(may_grow) if may_grow else None
            if may_grow and isinstance(before, int):
                self.previous.options[may_grow] = max(before, options[may_grow])
        if self.previous is not None and restart is not None:
            changed = [role for role, digest in self.meta.inputs.items() if self.previous.inputs.get(role) != digest]
            same = self.previous
            if same.status == "complete" and same.schema_version < 2 and "prompt_date" in options:
                # not recorded by version 1; it has no effect on a complete output, and ``begin`` refuses another one
                dated = {"prompt_date": options["prompt_date"], **same.options}
                same = same.model_copy(update={"options": dated})
            check_same(same, self.meta, file, restart, changed)
            self.inputs_changed = changed
            self.meta.begun = self.previous.begun or self.meta.begun
            self.meta.spent = self.previous.spent
        self.spent_before = self.meta.spent or Spent()
        self._seconds_before = self.previous.seconds if self.previous else 0.0
        self._started = time.monotonic()

    @property
    def is_complete(self) -> bool:
        """Whether the run that is continued has come to its end."""
        return self.previous is not None and self.previous.status == "complete"

    def warn_of_changed_inputs(self) -> None:
        """Called when what is already done has been read and is kept, so that no error contradicts the warning."""
        for role in self.inputs_changed:
            warn(f"the {role} file has changed since the run recorded in {self.file}; what is already done is kept")

    def add_up(self, parts: Sequence[RunMeta]) -> None:
        """Record what the runs of the parts have taken: this run only puts their outputs together."""
        self.meta.begun = min(part.begun for part in parts)
        spent = [part.spent for part in parts if part.spent is not None]
        self.meta.spent = sum(spent, Spent()) if spent else None
        self._seconds_before = sum(part.seconds for part in parts)

    def begin(self, options: Mapping[str, Any] | None = None) -> None:
        """Write the record. Called when the inputs are known to be valid.

        Args:
            options: further options, which are known only after the model is loaded (it may be downloaded then).

        Raises:
            OtherSettings: they differ from the options of the run that is continued.
        """
        self.meta.options |= options or {}
        if self.previous is not None and self._restart is not None:
            check_same(self.previous, self.meta, self.file, self._restart)
        _write(self.file, self.meta.model_dump_json(indent=2))

    def note_spent(self, spent: Spent) -> None:
        """Write into the record what the calls of this run have taken by now, beside those of earlier runs. The record
        begins with the first money, even where the first result is far off."""
        if spent != Spent():
            self.meta.spent = self.spent_before + spent
            _write(self.file, self.meta.model_dump_json(indent=2))

    def finish(self, counts: Mapping[str, Any], outputs: Iterable[Path] | None = None) -> None:
        """Write the record of a finished run.

        Args:
            outputs: the files that the run wrote, in the folder of the record; missing files are left out. None: the
                file that the record is named after.
        """
        named = [self.file.with_name(self.file.name.removesuffix(META_SUFFIX))] if outputs is None else outputs
        files = [file for file in named if file != self.file and file.is_file()]
        self.meta.outputs = {file.name: sha256_of(file) for file in files}
        self.meta.status = "complete"
        self.meta.counts = dict(counts)
        self.meta.seconds = round(time.monotonic() - self._started + self._seconds_before, 3)
        _write(self.file, self.meta.model_dump_json(indent=2))


_invocation: ContextVar[tuple[str, Mapping[str, Any]] | None] = ContextVar("invocation", default=None)


@contextmanager
def invoked_as(command_line: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Runs inside record this command line in place of that of the process, because a pipeline runs many commands."""
    token = _invocation.set((command_line, arguments))
    try:
        yield
    finally:
        _invocation.reset(token)


def by_role(role: str, files: Sequence[Path]) -> dict[str, Path]:
    """Several inputs of one role, as ``Run`` takes them: ``role``, ``role-2`` and so on."""
    return {role if i == 1 else f"{role}-{i}": file for i, file in enumerate(files, 1)}


class OtherSettings(CannotContinue):
    """An output was made with other options than those of the run that should continue it."""


def set_aside(*files: Path) -> list[tuple[Path, Path]]:
    """Rename an earlier output to ``.bak`` (``.bak2`` ...) before a run starts again: nothing is deleted.

    Of a symbolic link the target is renamed, so that the link leads to the new output.

    Returns:
        The old and the new name of each file that was there.
    """
    renamed = []
    for link in files:
        if link.exists():
            file = link.resolve()
            names = (file.with_name(f"{file.name}.bak{number}") for number in ("", *range(2, 1000)))
            renamed.append((file, file.rename(next(name for name in names if not name.exists()))))
    return renamed


@contextmanager
def begun_anew(*files: Path, restart: bool) -> Iterator[None]:
    """With ``restart``, set an earlier output aside for a run. Where the run fails before it has written any of the
    files, as with a model that is not there, the output is put back."""
    renamed = set_aside(*files) if restart else []
    try:
        yield
    except UserError:
        if renamed and not any(file.exists() for file in files):
            for file, kept in renamed:
                kept.rename(file)
            say(f"{renamed[0][0]} is put back: the run has written nothing")
        raise


def relative_to_folder(path: Path, folder: Path) -> str:
    """A path relative to a folder, because both may be moved together; a dataset on the Hub stays as it is."""
    if is_on_hub(path):
        return str(path)
    # ".." is relative to the targets of folders that are symbolic links
    return Path(os.path.relpath(path.absolute().parent.resolve() / path.name, folder.resolve())).as_posix()


def _own_command_line() -> str:
    name = Path(sys.argv[0]).name
    return shlex.join(["maskdpo" if name == "__main__.py" else name, *sys.argv[1:]])


def note_arguments(file: Path, arguments: Mapping[str, Any]) -> None:
    """Record the arguments of a command that had nothing left to do, so that the next one sees no change."""
    meta, clean = read_meta(file), without_secrets(dict(arguments))
    if meta is not None and meta.arguments != clean:
        # the record may be of another version, whose other fields must not change
        _write(file, json.dumps(json.loads(file.read_bytes()) | {"arguments": clean}, indent=2, ensure_ascii=False))


def _write(file: Path, record: str) -> None:
    with atomic_write(file) as handle:
        handle.write(record.encode() + b"\n")


def check_same(before: RunMeta, now: RunMeta, file: Path, restart: str, changed_inputs: Iterable[str] = ()) -> None:
    """Refuse to continue an output that was made with other options, or from other inputs that must not change.

    Args:
        restart: what the user can do.
        changed_inputs: their roles. Those that may change are passed over (``Run.warn_of_changed_inputs``).

    Raises:
        CannotContinue: it is an output of another command.
        OtherSettings: any other difference.
    """
    if before.command != now.command:
        raise CannotContinue(f"records an output of `maskdpo {before.command}`; name another output", path=file)
    keys = sorted(before.options.keys() | now.options.keys())
    changed = [
        _HASH.sub(r"\1...", f"{key}: {before.options.get(key)!r} -> {now.options.get(key)!r}")
        for key in keys
        if before.options.get(key) != now.options.get(key)
    ]
    changed += [f"the {role} file has changed" for role in changed_inputs if is_fixed(now.command, role)]
    if changed:
        what = "; ".join(changed)
        raise OtherSettings(f"an earlier run with other settings is recorded here ({what}). {restart}", path=file)
