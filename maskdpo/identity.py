"""The identity of a model: a hash of its files, or its commit on the Hub."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from maskdpo.console import warn
from maskdpo.errors import UserError
from maskdpo.io import atomic_write, sha256
from maskdpo.models import SMOLLM2, cache_dir, resolve_model

CONFIGS = ("config.json", "generation_config.json", "adapter_config.json", "tokenizer_config.json")
PROCESSOR_FILES = (
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "chat_template.json",
)  # fmt: skip
"""The files that transformers and vLLM read to prepare images and videos; they may also hold the chat template."""
MODEL_FILES = (
    *CONFIGS, *PROCESSOR_FILES,
    "model.safetensors", "model-*-of-*.safetensors", "model.safetensors-*-of-*.safetensors",
    "adapter_model.safetensors", "pytorch_model.bin", "pytorch_model-*-of-*.bin", "adapter_model.bin",
    "model.safetensors.index.json", "pytorch_model.bin.index.json",
    "tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "tokenizer.model", "tokenizer.model.v*", "spiece.model", "sentencepiece*.model", "tekken.json", "*.tiktoken",
    "chat_template.jinja", "additional_chat_templates/*.jinja",
)  # fmt: skip
"""Names and patterns of the files of a model; the weights that an index names, and code, belong to it too."""
OLD_FINGERPRINT = 16
"""Length of a fingerprint of names, sizes and times, which earlier versions recorded."""


def fingerprint(name: str, recorded: str | None = None) -> str:
    """The identity of a model, independent of where its files are and when they were copied.

    Args:
        recorded: the identity that an earlier run recorded. It is returned if it can be that of this model: a
            fingerprint of names, sizes and times, which earlier versions made; or one of the two has no known commit.

    Returns:
        For a folder, the SHA-256 over its weights, configs, tokenizer and chat templates; for a Hub id, ``id@commit``
        if the cache of Hugging Face on this machine has it, else the id alone.
    """
    folder = Path(resolve_model(name) if name == SMOLLM2 else name).expanduser()
    if not folder.is_dir():
        return _with_commit(name, recorded)
    files = model_files(folder)
    if recorded and len(recorded) == OLD_FINGERPRINT and recorded == _by_dates(folder):
        return recorded
    listed = [(file.relative_to(folder).as_posix(), digest) for file, digest in zip(files, hashes(files), strict=True)]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def revision(name: str) -> str | None:
    """The fingerprint of a model; None where this machine knows nothing of it but its name."""
    files = fingerprint(name)
    return files if files != name else None


def model_files(folder: Path) -> list[Path]:
    """The sorted files of a folder that decide the output of its model: weights, configs, tokenizer, chat templates,
    settings for images and sounds, and the code that a config names. Other files may be the user's."""
    found = {file for pattern in MODEL_FILES for file in folder.glob(pattern)}
    for index in folder.glob("*.index.json"):
        found |= {folder / Path(name).name for name in _read_json(index).get("weight_map", {}).values()}
    return sorted(file for file in found | _code(folder) if file.is_file())


def _code(folder: Path) -> set[Path]:
    """Python files that configs name as code of the model (``auto_map``), and the files that these import."""
    maps = [_read_json(folder / name).get("auto_map") or {} for name in (*CONFIGS, *PROCESSOR_FILES)]
    classes = [
        name for one in maps for names in one.values() for name in (names if isinstance(names, list) else [names])
    ]
    # "org/model--file.Class" is code of another repository
    files = {folder / f"{name.partition('.')[0]}.py" for name in classes if name and "--" not in name}
    files = {file for file in files if file.is_file()}
    if files:
        from transformers.dynamic_module_utils import get_relative_import_files

        files |= {Path(imported) for file in files for imported in get_relative_import_files(file)}
    return files


def _read_json(file: Path) -> dict[str, Any]:
    """The object in a file; empty where the file is missing or damaged."""
    try:
        read = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def hashes(files: Sequence[Path]) -> list[str]:
    """The SHA-256 of each file. The cache folder keeps hashes until the path, inode, size or times of a file change."""
    cached_file = cache_dir() / "hashes.json"
    cached = _cached_hashes(cached_file)
    found: dict[str, tuple[list[int], str]] = {}
    for file in files:
        state = _state(file)
        before = cached.get(str(file.resolve()))
        digest = before[1] if before and before[0] == state else sha256(file)
        if _state(file) == state:
            found[str(file.resolve())] = state, digest
        else:
            raise UserError(f"{file}: is being written to; wait until that is done")
    if any(cached.get(path) != entry for path, entry in found.items()):
        kept = {path: entry for path, entry in _cached_hashes(cached_file).items() if Path(path).exists()}
        with suppress(UserError, OSError), atomic_write(cached_file) as handle:  # the cache may not be writable
            handle.write(json.dumps(kept | found).encode())
    return [found[str(file.resolve())][1] for file in files]


def _cached_hashes(file: Path) -> dict[str, tuple[list[int], str]]:
    """Cached hashes by path; empty where the file is missing or damaged."""
    try:
        return {path: (state, digest) for path, (state, digest) in _read_json(file).items()}
    except (ValueError, TypeError):
        return {}


def _state(file: Path) -> list[int]:
    """Values that change with a file. The last one, the change time, cannot be set back."""
    stat = file.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _by_dates(folder: Path) -> str:
    """The fingerprint of earlier versions, which did not read contents, so that their runs can be continued."""
    old = [file for file in folder.iterdir() if file.suffix in {".safetensors", ".json"} and file.is_file()]
    files = sorted(file for file in old if file.name != "maskdpo_run.json")
    listed = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:OLD_FINGERPRINT]


def _with_commit(name: str, recorded: str | None) -> str:
    try:
        from huggingface_hub import try_to_load_from_cache

        config = try_to_load_from_cache(name, "config.json")
    except (ModuleNotFoundError, ValueError):  # without the package, no cache; no Hub id: a name on some server
        config = None
    known = f"{name}@{Path(config).parent.name}" if isinstance(config, str) else name
    if known == name and recorded and recorded.startswith(f"{name}@"):
        warn(f"{name}: its commit is not known on this machine; taken to be the recorded one, {recorded}")
        return recorded
    return name if recorded == name else known
