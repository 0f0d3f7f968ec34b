"""What pushing a dataset and pushing a model share: the checks beforehand, and the one commit."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from maskdpo import extras
from maskdpo.console import counted, say, warn
from maskdpo.errors import UserError
from maskdpo.hub.client import INSTALL, bars_on_terminals_only, http_errors, hub_errors

KEPT = ".gitattributes"
"""The file that the Hub has made, which a push leaves alone."""


def check_name(repo: str, option: str) -> None:
    """Refuse (``UserError``) what cannot be the name of a repository; ``option``: where the user has named it."""
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with hub_errors(f"{option} {repo}"):
        validate_repo_id(repo)


def full_name(repo: str, option: str) -> str:
    """``user/name`` of a repository; asked before anything else, because no push succeeds without a valid token.

    Raises:
        UserError: the name or the token is not valid, there is no token, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    check_name(repo, option)
    with hub_errors(f"{option} {repo}"):
        user = HfApi().whoami()["name"]
    return repo if "/" in repo else f"{user}/{repo}"


def check_push(repo: str) -> str:
    """Before training: a push that must fail fails now.

    Returns:
        The full name of the repository, ``user/name``.

    Raises:
        UserError: a package, a token or a permission is missing, or the name is not valid.
    """
    extras.require("huggingface_hub", install=INSTALL, purpose="`push`")
    return full_name(repo, "`push`")


def push_model(repo: str, files: Mapping[str, Path | bytes], message: str) -> str:
    """Send a model as one commit: create the repository, private, if it is not there, and send what differs.

    After it the repository holds these files and no others: an adapter or shards of an earlier push, left beside
    another model, would be loaded with it, or instead of it.

    Returns:
        The URL of the commit.

    Raises:
        UserError: it cannot be done; nothing has been changed then, and the command may be repeated.
    """
    repo = check_push(repo)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
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
    return commit(repo, files, others, repo_type="model", parent=info.sha, message=message)


def commit(
    repo: str,
    changed: Mapping[str, Path | bytes],
    deleted: Iterable[str],
    *,
    repo_type: Literal["dataset", "model"],
    parent: str | None,
    message: str,
) -> str:
    """Send files and delete others, in one commit.

    Args:
        changed: what each file of the repository is to hold, by its name there.
        parent: the commit that the changes were made for; where it is no longer the last one, the Hub refuses (412).

    Returns:
        The URL of the commit.

    Raises:
        UserError: the commit cannot be made. Nothing has changed then; what was uploaded is not uploaded again when
            the command is repeated.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi

    operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
        *(CommitOperationAdd(name, file if isinstance(file, bytes) else str(file)) for name, file in changed.items()),
        *(CommitOperationDelete(name) for name in deleted),
    ]
    bars_on_terminals_only()
    say(f"pushing {counted(len(changed), 'file')} to {repo} ...")
    with hub_errors(f"pushing to {repo}"), _upload_errors(repo):
        made = HfApi().create_commit(
            repo, operations, commit_message=message, repo_type=repo_type, parent_commit=parent
        )
    return str(made.commit_url)


@contextmanager
def _upload_errors(repo: str) -> Iterator[None]:
    """Errors of an upload, and of a card that the Hub does not accept, which the client raises as errors of Python."""
    try:
        yield
    except RuntimeError as error:
        cause: Any = error.__cause__
        if isinstance(cause, http_errors()):
            raise cause from None
        raise UserError(f"pushing to {repo}: an upload failed ({cause or error}); repeat the command") from None
    except ValueError as error:
        if isinstance(error, http_errors()):
            raise
        raise UserError(f"pushing to {repo}: {' '.join(str(error).split())}") from None
