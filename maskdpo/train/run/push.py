"""``maskdpo train --push``: the folder of a trained model as one commit on the Hugging Face Hub.

After it the repository holds the files of this run and no others: an adapter or shards of an earlier push, left beside
another model, would be loaded with it, or instead of it. Only ``.gitattributes``, which the Hub has made, stays.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from maskdpo import extras
from maskdpo.console import say, warn
from maskdpo.errors import UserError
from maskdpo.hub.client import INSTALL, bars_on_terminals_only, hub_errors
from maskdpo.identity import model_files
from maskdpo.public import shown_settings
from maskdpo.run_record import META_IN_FOLDER
from maskdpo.schemas.training import ANSWERS, SETTINGS

KEPT, ADAPTER = ".gitattributes", "adapter_config.json"


def check_push(repo: str) -> None:
    """Before training: a push that must fail fails now.

    Raises:
        UserError: a package, a token or a right is missing, or the name is none.
    """
    extras.require("huggingface_hub", install=INSTALL, purpose="--push")
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with hub_errors(f"--push {repo}"):
        validate_repo_id(repo)
        HfApi().whoami()


def push_model(folder: Path, repo: str) -> str:
    """Create the repository, private, if it is not there, send what differs and delete what is not of this run.

    Returns:
        The URL of the commit.

    Raises:
        UserError: it cannot be done; nothing has been changed then, and the command may be repeated.
    """
    check_push(repo)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    bars_on_terminals_only()
    files = published(folder)
    operations: list[Any] = [CommitOperationAdd(name, content) for name, content in files.items()]
    with hub_errors(f"pushing to {repo}"):
        repo = repo if "/" in repo else f"{api.whoami()['name']}/{repo}"
        try:
            info = api.model_info(repo)
            if not info.private:
                warn(f"{repo} is public already, and stays so")
        except RepositoryNotFoundError:
            api.create_repo(repo, private=True)
            info = api.model_info(repo)
        others = set(api.list_repo_files(repo, revision=info.sha)) - set(files) - {KEPT}
        operations += [CommitOperationDelete(name) for name in sorted(others)]
        if others:
            say(f"{repo} holds files that are not of this run, which are deleted: {', '.join(sorted(others))}")
        say(f"pushing {len(files)} files to {repo} ...")
        try:
            commit = api.create_commit(
                repo, operations, commit_message="Model and card, with maskdpo train", parent_commit=info.sha
            )
        except RuntimeError as error:  # how the client wraps what goes wrong in an upload
            raise UserError(
                f"pushing to {repo}: an upload failed ({error.__cause__ or error}); repeat the command"
            ) from None
    return str(commit.commit_url)


def published(folder: Path) -> dict[str, str | bytes]:
    """The model, its card and its figures; not the record, which says where files lay on this machine.

    Returns:
        By name in the repository, the path of the file; or its content, where that is not the file's own: the settings
        and the adapter name a base model out of a folder by that folder's name alone.
    """
    found = sorted({file for file in folder.iterdir() if file.is_file()} | set(model_files(folder)))
    files: dict[str, str | bytes] = {
        file.relative_to(folder).as_posix(): str(file)
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
