"""``maskdpo train --push``: the folder of a trained model as one commit on the Hugging Face Hub."""

import json
from pathlib import Path

import yaml

from maskdpo.hub.push import push_model as push_files
from maskdpo.identity import model_files
from maskdpo.redact import shown_settings
from maskdpo.run_record import META_IN_FOLDER
from maskdpo.schemas.training import ANSWERS, SETTINGS

ADAPTER = "adapter_config.json"


def push_model(folder: Path, repo: str) -> str:
    """Send the files of a run (``hub.push.push_model``). Returns the URL of the commit."""
    return push_files(repo, published(folder), "Model and card, with maskdpo train")


def published(folder: Path) -> dict[str, Path | bytes]:
    """The model, its card and its figures; not the record, which says where files lay on this machine.

    Returns:
        By name in the repository, the path of the file; or its content, where that is not the file's own: the settings
        and the adapter name a base model out of a folder by that folder's name alone.
    """
    found = sorted({file for file in folder.iterdir() if file.is_file()} | set(model_files(folder)))
    files: dict[str, Path | bytes] = {
        file.relative_to(folder).as_posix(): file
        for file in found
        if not file.name.startswith(".") and file.name not in (META_IN_FOLDER, ANSWERS)
    }
    settings = yaml.safe_load((folder / SETTINGS).read_text(encoding="utf-8"))
    shown = shown_settings(settings)
    files[SETTINGS] = yaml.safe_dump(shown, sort_keys=False).encode()
    if ADAPTER in files:
        adapter = json.loads((folder / ADAPTER).read_text(encoding="utf-8")) | {
            "base_model_name_or_path": shown["model"]
        }
        files[ADAPTER] = json.dumps(adapter, indent=2, sort_keys=True).encode()
    return files
