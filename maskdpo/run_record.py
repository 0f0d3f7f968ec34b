"""The record of a run beside its output, ``<output>.meta.json``: what it says, where it is, whether it still holds."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from maskdpo.errors import InputError, UserError
from maskdpo.io import identity, open_bytes
from maskdpo.redact import line_without_secrets, without_secrets

META_IN_FOLDER = "maskdpo_run.json"
"""The name of the record inside an output that is a folder: a trained model."""
META_SUFFIX = ".meta.json"

SCHEMA_VERSION = 3
"""Version of ``RunMeta``, increased whenever a field is added. Records of version 1 do not have the field."""
DIGITS = 9
"""Of dollars: a token costs about 1e-8 or more."""


class Spent(BaseModel):
    """What the calls of a model on servers have taken."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the server had in its prefix cache."""
    completion_tokens: int = 0
    cost: float | None = None
    """Dollars, as far as prices are known; None where none is."""
    unanswered: float = 0.0
    """Dollars that calls which got no answer may have cost at most."""

    @property
    def most(self) -> float:
        return (self.cost or 0.0) + self.unanswered

    def __add__(self, other: "Spent") -> "Spent":
        known = [one.cost for one in (self, other) if one.cost is not None]
        return Spent(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost=round(sum(known), DIGITS) if known else None,
            unanswered=round(self.unanswered + other.unanswered, DIGITS),
        )


class RunMeta(BaseModel):
    """The record of one run of a stage."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    """``SCHEMA_VERSION`` when the record was written."""
    command: str
    options: dict[str, Any]
    """The options that decide the result. A run with other options does not continue this output."""
    inputs: dict[str, str]
    """By role, the SHA-256 of every input file; of a dataset on the Hub its name and commit."""
    paths: dict[str, str] = {}
    """By role, the path of every input, relative to the folder of this record."""
    outputs: dict[str, str] = {}
    """By name, the SHA-256 of the finished files beside this record. Empty in a model folder and in old records."""
    folder: str = "."
    """The folder in which the command ran, relative to that of this record. Paths in the arguments start there."""
    command_line: Annotated[str, AfterValidator(line_without_secrets)] = ""
    arguments: Annotated[dict[str, Any], AfterValidator(without_secrets)] = {}
    """The arguments of the command, if a pipeline ran it; they also have the options that do not decide the result."""
    begun: str = ""
    """The time (UTC) of the first run of this output; a run that continues it keeps the time."""
    versions: dict[str, str]
    status: Literal["running", "complete"] = "running"
    counts: dict[str, Any] = {}
    seconds: float = 0.0
    spent: Spent | None = None
    """What the calls of all runs of this output have taken; None where no server was asked."""

    @model_validator(mode="before")
    @classmethod
    def _without_fields_of_later_versions(cls, values: Any) -> Any:
        """Unknown fields are an error, except in the records of later versions."""
        version = values.get("schema_version") if isinstance(values, dict) else None
        if not isinstance(version, int) or version <= SCHEMA_VERSION:
            return values
        return {name: value for name, value in values.items() if name in cls.model_fields}


def meta_file(output: Path) -> Path:
    return output / META_IN_FOLDER if output.is_dir() else output.with_name(output.name + META_SUFFIX)


def record_of(path: Path) -> Path | None:
    """The record of an output. The pairs of held-out topics share the record of the training pairs."""
    if meta_file(path).exists():
        return meta_file(path)
    beside = meta_file(path.with_name(path.name.replace(".test.", ".", 1)))
    meta = read_meta(beside)
    if meta is None or meta.command != "build-pairs":
        return None
    return beside if not meta.outputs or path.name in meta.outputs else None


def refuse_replacing(out: Path, command: str | None = None, *, only_own: bool = False) -> None:
    """Refuse (``InputError``) an output that another command has made, as the record beside it says.

    Args:
        command: the one that is about to write; None where its outputs have no records.
        only_own: also refuse a file without a record, which may be people's work, such as gold.
    """
    record = record_of(out) if out.is_file() else None
    if only_own and out.is_file() and record is None:
        raise InputError("is there already, and no record says that maskdpo made it; name another output", path=out)
    meta = read_meta(record) if record else None
    if record is not None and meta is not None and meta.command != command:
        raise InputError(f"is an output of `maskdpo {meta.command}` (by {record.name}); name another output", path=out)


def recorded_models(meta: RunMeta) -> dict[str, tuple[str, str | None]]:
    """The models of a run by role, each with the fingerprint of its files or None: ``model``, and ``reference`` where a
    training names one. Records of ``annotate`` have the fingerprint as ``revision``."""
    found: dict[str, tuple[str, str | None]] = {}
    judged = meta.command == "annotate"
    for role, key in (("model", "revision" if judged else "model_files"), ("reference", "reference_files")):
        name, files = meta.options.get(role), meta.options.get(key)
        if isinstance(name, str) and (role == "model" or meta.command == "train"):
            # the revision of a custom judge may be anything
            known = isinstance(files, str) and not (judged and meta.options.get("name") != "llm")
            found[role] = name, files if known else None
    return found


def is_fixed(command: str, role: str) -> bool:
    """Whether an input must not change: an output that was begun with another one is not continued."""
    return command in ("review", "train", "train-judge") or (command, role.partition("-")[0]) == ("ground", "corpus")


def sha256_of(path: Path) -> str:
    """The SHA-256 of the bytes of a file; for a folder or a dataset on the Hub the result of ``io.identity``."""
    known = identity(path)
    if known is not None:
        return known
    with open_bytes(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def holds(path: Path, digest: str) -> bool:
    """Whether an input is still what a run has read."""
    try:
        return sha256_of(path) == digest
    except UserError:  # it does not exist any more, or cannot be read
        return False


def changed_outputs(path: Path, meta: RunMeta) -> Iterator[tuple[str, Literal["changed", "missing"]]]:
    """Outputs that have changed or are missing since their run finished; ``path`` is one of them, maybe renamed."""
    if meta.outputs and path.name not in meta.outputs:
        if not any(holds(path, digest) for digest in meta.outputs.values()):
            yield path.name, "changed"
        return
    for name, digest in meta.outputs.items():
        file = path.with_name(name)
        if not holds(file, digest):
            yield name, "changed" if file.exists() else "missing"


def read_meta(file: Path) -> RunMeta | None:
    """The record of a run, or None where there is none."""
    if not file.exists():
        return None
    try:
        return RunMeta.model_validate_json(file.read_bytes())
    except ValidationError:
        raise InputError("is not a record of a maskdpo run; move it away", path=file) from None


def recorded_option(file: Path, name: str) -> Any:
    """An option of the run that is to be continued; None where nothing is recorded."""
    meta = read_meta(file)
    return meta.options.get(name) if meta is not None else None
