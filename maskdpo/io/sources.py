"""Inputs other than JSONL files: a Parquet or Arrow file, the folder of a dataset, a dataset on the Hub.

    data.parquet, data.arrow
    SAVED                       a folder that `datasets` has made by `save_to_disk`; of several splits one: SAVED/test
    FOLDER                      a folder with pairs/train-*.parquet, as ``maskdpo push --dry-run`` writes it
    hub:user/name               the same on the Hub; hub:user/name@REVISION: as it was at a commit, tag or branch
    hub:user/name/folder        the same in a folder of the repository
    hub:user/name:test          another split than train; FOLDER:test
    hub:user/name:prompts:test  another config than what the command reads; FOLDER:prompts

The name may leave the config out: the record type that a command reads decides.
"""

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple, cast

from maskdpo.errors import InputError, UserError
from maskdpo.hub import client
from maskdpo.io.tables import column_names, is_table, read_rows, saved_files
from maskdpo.schemas import Annotation, Decision, FileRecord, Pair, Prompt, Response

CONFIGS: dict[str, type[FileRecord]] = {
    "pairs": Pair,
    "annotations": Annotation,
    "prompts": Prompt,
    "decisions": Decision,
}
"""The configs of a dataset with their record types, the default config first."""
SPLITS = ("train", "test", "validation")
HUB = "hub:"
MAKE_PROMPTS = "`maskdpo import FILE --format prompts --columns prompt=COLUMN,reference=COLUMN` makes prompts of it"
"""What to do with tables of questions that hold no records."""
NAMED = re.compile(r"hub:(?P<repo>[^@:]+)(@(?P<revision>[^:]+))?(?P<parts>(:[^:]+)*)")


class Dataset(NamedTuple):
    """A folder or a dataset on the Hub, with the part of it that a name refers to."""

    base: str
    """``hub:user/name``, or the folder."""
    revision: str | None
    config: str | None
    """None: the config of the record type that is read."""
    split: str

    @property
    def on_hub(self) -> bool:
        return self.base.startswith(HUB)

    def snapshot(self) -> client.Snapshot:
        repo = "/".join(self.base.removeprefix(HUB).split("/")[:2])
        return client.snapshot(repo, self.revision)

    @property
    def inner(self) -> str:
        """The folder in the repository on the Hub, with a slash at its end; empty for the whole repository."""
        folder = "/".join(self.base.removeprefix(HUB).split("/")[2:]).strip("/")
        return f"{folder}/" if folder and self.on_hub else ""


class Tables(NamedTuple):
    """Parquet or Arrow files that hold the records of one input, in their order."""

    shown: Path
    """The name of the input in errors."""
    files: Callable[[], Iterator[Path]]
    """Files on the Hub are downloaded one by one, as they are read."""
    own_columns: bool
    """Whether to read only the columns of the record type, out of a larger record."""


def is_on_hub(path: Path) -> bool:
    return str(path).startswith(HUB)


def dataset_of(path: Path) -> Dataset | None:
    """The dataset that a name refers to; None for a plain file or a file that does not exist."""
    name = str(path)
    if is_on_hub(path):
        found = NAMED.fullmatch(name)
        if found is None:
            raise UserError(f"{name}: must read hub:user/name, hub:user/name@revision or hub:user/name:split")
        config, split = _parts(found["parts"].split(":")[1:], name)
        return Dataset(HUB + found["repo"], found["revision"], config, split)
    if _has_shape(path):
        return Dataset(name, None, None, "train")
    for count in (1, 2):
        folder, *parts = name.rsplit(":", count)
        if parts and not path.exists() and _has_shape(Path(folder)):
            return Dataset(folder, None, *_parts(parts, name))
    return None


def _has_shape(path: Path) -> bool:
    return path.is_dir() and any((path / config).is_dir() for config in CONFIGS)


def _parts(parts: list[str], name: str) -> tuple[str | None, str]:
    """Config and split from the parts after the name: ``test``, ``prompts``, or ``prompts`` and ``test``."""
    rest = list(parts)
    config = rest.pop(0) if rest and rest[0] in CONFIGS else None
    split = rest.pop(0) if rest and rest[0] in SPLITS else "train"
    if rest:
        raise UserError(
            f"{name}: {rest[0]!r} is none of the splits {', '.join(SPLITS)} and of the configs {', '.join(CONFIGS)}"
        )
    return config, split


GENERAL = Path(__file__).parent / "general.jsonl"
"""Prompts of everyday kinds, which no training of this toolkit is about: users know them as ``builtin:general``."""


def with_config(path: Path, config: str) -> Path:
    """The path with a config, where it names a dataset without one, or the file of prompts that are built in; other
    paths are returned unchanged."""
    if config == "prompts" and str(path) == "builtin:general":
        return GENERAL
    dataset = dataset_of(path)
    if dataset is None or dataset.config is not None:
        return path
    return Path(_name(dataset._replace(config=config)))


def _name(dataset: Dataset) -> str:
    at = f"@{dataset.revision}" if dataset.revision else ""
    split = dataset.split if dataset.split != "train" else None
    return ":".join([dataset.base + at, *(part for part in (dataset.config, split) if part)])


def tables_of(path: Path, model: type[FileRecord] | None = None) -> Tables | None:
    """The Parquet or Arrow files of an input, or None where it is JSONL (or does not exist).

    Args:
        model: the record type to read; None: that of the config in the name, or of the first config that has files.
    """
    dataset = dataset_of(path)
    if dataset is None:
        files = [path] if is_table(path) else saved_files(path)
        return Tables(path, lambda: iter(files), own_columns=False) if files else None
    if dataset.config is None:
        dataset = dataset._replace(config=_config_for(dataset, model))
    config = cast(str, dataset.config)
    # published annotations can be read as responses, to be judged again: their labels are left out
    own_columns = model is Response and CONFIGS[config] is Annotation
    if model is not None and CONFIGS[config] is not model and not own_columns:
        raise InputError(f"holds {config}, {model.__name__.lower()}s are needed", path=path)
    names = _shards(dataset)
    if not names:
        other = f"; {MAKE_PROMPTS}" if dataset.on_hub and config == "prompts" else ""
        raise InputError(f"holds no {config}/{dataset.split}-*.parquet{other}", path=path)
    if dataset.on_hub:
        where = dataset.snapshot()
        shown = Path(f"{dataset.base}@{where.sha[:8]}") / _shown(names)
        return Tables(shown, lambda: (client.download(where, name) for name in names), own_columns)
    folder = Path(dataset.base)
    return Tables(folder / _shown(names), lambda: (folder / name for name in names), own_columns)


def _config_for(dataset: Dataset, model: type[FileRecord] | None) -> str:
    if model is None:
        there = [config for config in CONFIGS if _shards(dataset._replace(config=config))]
        return there[0] if there else next(iter(CONFIGS))
    wanted = Annotation if model is Response else model
    return next(config for config, kind in CONFIGS.items() if kind is wanted)


def _shards(dataset: Dataset) -> list[str]:
    """The names of the files of one config and split, in their order."""
    prefix = f"{dataset.inner}{dataset.config}/{dataset.split}-"
    if dataset.on_hub:
        names = list(dataset.snapshot().files)
    else:
        names = [f"{dataset.config}/{file.name}" for file in Path(dataset.base, str(dataset.config)).glob("*.parquet")]
    return sorted(name for name in names if name.startswith(prefix) and name.endswith(".parquet"))


def _shown(names: list[str]) -> str:
    """One name for all shards of a split, because their rows are counted without a break."""
    return names[0] if len(names) == 1 else f"{names[0].rsplit('-', 1)[0]}-*.parquet"


def rows_of(tables: Tables, model: type[FileRecord]) -> Iterator[dict[str, Any] | ValueError]:
    for file in tables.files():
        yield from read_rows(file, model, own_columns=tables.own_columns)


def type_of(path: Path, tables: Tables, kinds: tuple[tuple[str, type[FileRecord]], ...]) -> type[FileRecord]:
    """The record type of tables, by the columns of the first file."""
    names = column_names(next(tables.files()))
    for field, model in kinds:
        if field in names:
            return model
    raise InputError("no records that maskdpo knows: prompts, responses, annotations or pairs", path=path)


def as_json_lines(tables: Tables, model: type[FileRecord]) -> BufferedReader:
    """All rows as JSON lines in a temporary file, for readers that read lines again and in any order."""
    from maskdpo.io.write import to_line

    file = cast(BufferedReader, tempfile.TemporaryFile("w+b"))  # noqa: SIM115 - closed by the reader
    for row in rows_of(tables, model):
        if isinstance(row, ValueError):
            raise InputError(str(row), path=tables.shown)
        file.write(to_line(model.model_validate(row)))
    file.seek(0)
    return file


def identity(path: Path) -> str | None:
    """What identifies the contents of a dataset: repository and commit, or the SHA-256 of the sorted files of a folder;
    of a folder that is no dataset: of all its files.

    None for a plain file, which its own SHA-256 identifies.
    """
    dataset = dataset_of(path)
    if dataset is None:
        saved = saved_files(path)
        if saved is None and not path.is_dir():
            return None
        return _hash_of(path, [file.name for file in saved] if saved is not None else files_in(path))
    if dataset.on_hub:
        return _name(dataset._replace(revision=dataset.snapshot().sha))
    configs = [dataset.config] if dataset.config else list(CONFIGS)
    shards = (name for config in configs for name in _shards(dataset._replace(config=config)))
    return _hash_of(Path(dataset.base), sorted(shards))


def files_in(folder: Path) -> list[str]:
    """The sorted paths of all files in a folder and in those below it, relative to it; hidden ones are left out."""
    paths = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return sorted(path.as_posix() for path in paths if not any(step.startswith(".") for step in path.parts))


def _hash_of(folder: Path, names: Iterable[str]) -> str:
    """The SHA-256 of the names and contents of these files."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name} {sha256(folder / name)}\n".encode())
    return digest.hexdigest()


def sha256(file: Path) -> str:
    """The SHA-256 of the bytes of a file."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
