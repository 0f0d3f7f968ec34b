"""``maskdpo train --push``: the folder of a trained model as one commit on the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from maskdpo import extras
from maskdpo.console import say, warn
from maskdpo.errors import UserError
from maskdpo.io.hub import INSTALL, bars_on_terminals_only, hub_errors
from maskdpo.runs import META_IN_FOLDER


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
    """Create the repository, private, if it is not there, and send what differs; the URL of the commit is returned.

    Raises:
        UserError: it cannot be done; nothing has been changed then, and the command may be repeated.
    """
    check_push(repo)
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    bars_on_terminals_only()
    operations: list[Any] = [CommitOperationAdd(file.name, str(file)) for file in published(folder)]
    with hub_errors(f"pushing to {repo}"):
        repo = repo if "/" in repo else f"{api.whoami()['name']}/{repo}"
        try:
            if not api.model_info(repo).private:
                warn(f"{repo} is public already, and stays so")
        except RepositoryNotFoundError:
            api.create_repo(repo, private=True)
        say(f"pushing {len(operations)} files to {repo} ...")
        try:
            info = api.create_commit(repo, operations, commit_message="Model and card, with maskdpo train")
        except RuntimeError as error:  # how the client wraps what goes wrong in an upload
            raise UserError(
                f"pushing to {repo}: an upload failed ({error.__cause__ or error}); repeat the command"
            ) from None
    return str(info.commit_url)


def published(folder: Path) -> list[Path]:
    """The model, its card and its figures; not the record, which says where files lay on this machine."""
    return [
        file
        for file in sorted(folder.iterdir())
        if file.is_file() and not file.name.startswith(".") and file.name not in (META_IN_FOLDER, "answers.jsonl")
    ]
