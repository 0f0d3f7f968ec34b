"""What tells one model from another: the contents of its files, or its commit on the Hub."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from maskdpo.console import warn
from maskdpo.errors import UserError
from maskdpo.io import atomic_write
from maskdpo.models import SMOLLM2, cache_dir, resolve_model, sha256

CONFIGS = ("config.json", "generation_config.json", "adapter_config.json", "tokenizer_config.json")
PROCESSOR_FILES = (
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "chat_template.json",
)  # fmt: skip
"""What transformers and vLLM read to prepare images and videos, and the template that such a model may have there."""
MODEL_FILES = (
    *CONFIGS, *PROCESSOR_FILES,
    "model.safetensors", "model-*-of-*.safetensors", "model.safetensors-*-of-*.safetensors",
    "adapter_model.safetensors", "pytorch_model.bin", "pytorch_model-*-of-*.bin", "adapter_model.bin",
    "model.safetensors.index.json", "pytorch_model.bin.index.json",
    "tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "tokenizer.model", "tokenizer.model.v*", "spiece.model", "sentencepiece*.model", "tekken.json", "*.tiktoken",
    "chat_template.jinja", "additional_chat_templates/*.jinja",
)  # fmt: skip
"""Names, and patterns of names, that belong to a model; besides them the weights that an index names, and code."""
OLD_FINGERPRINT = 16
"""Characters of a fingerprint of names, sizes and times, as maskdpo recorded them before."""


def fingerprint(name: str, recorded: str | None = None) -> str:
    """What tells another model from the same one, wherever its files lie and whenever they were copied.

    Args:
        recorded: what an earlier run has found. It is returned if it can mean the model of now: a fingerprint made of
            names, sizes and times, as maskdpo made them before; or the commit is not known of one of the two.

    Returns:
        Of a folder, the SHA-256 of the contents of its weights, configs, tokenizer and chat templates; of a Hub id,
        ``id@commit`` as Hugging Face's cache on this machine has it, and the id alone where that has none.
    """
    folder = Path(resolve_model(name) if name == SMOLLM2 else name).expanduser()
    if not folder.is_dir():
        return _with_commit(name, recorded)
    files = model_files(folder)
    if recorded and len(recorded) == OLD_FINGERPRINT and recorded == _by_dates(folder):
        return recorded
    listed = [(file.relative_to(folder).as_posix(), digest) for file, digest in zip(files, hashes(files), strict=True)]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def model_files(folder: Path) -> list[Path]:
    """The files in a folder that decide what a model says, sorted: weights, configs, tokenizer, chat templates, what
    prepares images and sounds, and the code that a config names. Anything else may be the user's own."""
    found = {file for pattern in MODEL_FILES for file in folder.glob(pattern)}
    for index in folder.glob("*.index.json"):
        found |= {folder / Path(name).name for name in _read_json(index).get("weight_map", {}).values()}
    return sorted(file for file in found | _code(folder) if file.is_file())


def _code(folder: Path) -> set[Path]:
    """Python files that configs name as the model's own (``auto_map``), and what these import from beside them."""
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
    """Nothing where the file is missing or damaged."""
    try:
        read = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def hashes(files: Sequence[Path]) -> list[str]:
    """The SHA-256 of each file. Those of unchanged files are remembered in the cache folder: by path, inode, size and
    times."""
    known_file = cache_dir() / "hashes.json"
    known = _remembered(known_file)
    found: dict[str, tuple[list[int], str]] = {}
    for file in files:
        state = _state(file)
        before = known.get(str(file.resolve()))
        digest = before[1] if before and before[0] == state else sha256(file)
        if _state(file) == state:
            found[str(file.resolve())] = state, digest
        else:
            raise UserError(f"{file}: is being written to; wait until that is done")
    if any(known.get(path) != entry for path, entry in found.items()):
        kept = {path: entry for path, entry in _remembered(known_file).items() if Path(path).exists()}
        with suppress(UserError, OSError), atomic_write(known_file) as handle:  # a cache that cannot be written to
            handle.write(json.dumps(kept | found).encode())
    return [found[str(file.resolve())][1] for file in files]


def _remembered(file: Path) -> dict[str, tuple[list[int], str]]:
    """By path; nothing where the file is missing or damaged."""
    try:
        return {path: (state, digest) for path, (state, digest) in _read_json(file).items()}
    except (ValueError, TypeError):
        return {}


def _state(file: Path) -> list[int]:
    """What changes when a file does. The second time cannot be set back."""
    stat = file.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _by_dates(folder: Path) -> str:
    """The fingerprint that maskdpo recorded before it read contents, to go on with what was begun then."""
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
