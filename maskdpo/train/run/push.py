"""``maskdpo train --push``: the folder of a trained model as one commit on the Hugging Face Hub.

After it the repository holds the files of this run and no others: an adapter or shards of an earlier push, left beside
another model, would be loaded with it, or instead of it. Only ``.gitattributes``, which the Hub has made, stays.
"""

import json
from pathlib import Path

import yaml

from maskdpo import extras
from maskdpo.console import say, warn
from maskdpo.hub.client import INSTALL, hub_errors
from maskdpo.hub.push import commit, full_name
from maskdpo.identity import model_files
from maskdpo.redact import shown_settings
from maskdpo.run_record import META_IN_FOLDER
from maskdpo.schemas.training import ANSWERS, SETTINGS

KEPT, ADAPTER = ".gitattributes", "adapter_config.json"


def check_push(repo: str) -> str:
    """Before training: a push that must fail fails now.

    Returns:
        The full name of the repository, ``user/name``.

    Raises:
        UserError: a package, a token or a permission is missing, or the name is not valid.
    """
    extras.require("huggingface_hub", install=INSTALL, purpose="`push`")
    return full_name(repo, "`push`")


def push_model(folder: Path, repo: str) -> str:
    """Create the repository, private, if it is not there, send what differs and delete what is not of this run.

    Returns:
        The URL of the commit.

    Raises:
        UserError: it cannot be done; nothing has been changed then, and the command may be repeated.
    """
    repo = check_push(repo)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    files = published(folder)
    with hub_errors(f"pushing to {repo}"):
        try:
            info = api.model_info(repo)
            if not info.private:
                warn(f"{repo} is public already, and stays so")
        except RepositoryNotFoundError:
            api.create_repo(repo, private=True)
            info = api.model_info(repo)
        others = sorted(set(api.list_repo_files(repo, revision=info.sha)) - set(files) - {KEPT})
    if others:
        say(f"{repo} holds files that are not of this run, which are deleted: {', '.join(others)}")
    message = "Model and card, with maskdpo train"
    return commit(repo, files, others, repo_type="model", parent=info.sha, message=message)


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
