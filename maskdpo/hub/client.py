"""The client of the Hugging Face Hub: the files of datasets, and its errors as messages for people."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from maskdpo import extras
from maskdpo.console import err
from maskdpo.errors import UserError, first_line

INSTALL = "'maskdpo[hub]'"


class Snapshot(NamedTuple):
    """A dataset repository as it was at one commit."""

    repo: str
    sha: str
    files: tuple[str, ...]


@cache
def snapshot(repo: str, revision: str | None) -> Snapshot:
    """The files of a revision, looked up once: a command reads one state, whatever is pushed meanwhile."""
    extras.require("huggingface_hub", install=INSTALL, purpose="reading from the Hub")
    from huggingface_hub import HfApi

    with hub_errors(f"hub:{repo}" + (f"@{revision}" if revision else "")):
        info = HfApi().dataset_info(repo, revision=revision)
    return Snapshot(repo, str(info.sha), tuple(sorted(file.rfilename for file in info.siblings or ())))


def download(where: Snapshot, file: str) -> Path:
    """A file of that commit, from the cache on this disk, or the first time from the Hub."""
    from huggingface_hub import hf_hub_download

    bars_on_terminals_only()
    with hub_errors(f"hub:{where.repo}: {file}"):
        return Path(hf_hub_download(where.repo, file, repo_type="dataset", revision=where.sha))


def bars_on_terminals_only() -> None:
    """Switch the progress bars of the client off where they would be written to a log."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not err.is_terminal:
        disable_progress_bars()


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn the errors of the client into a ``UserError`` about ``what``: one line that says what to do."""
    from huggingface_hub import errors

    http_error = http_errors()
    try:
        yield
    except errors.HFValidationError as error:
        raise UserError(f"{what}: {first_line(error)}") from None
    except errors.LocalTokenNotFoundError:
        raise UserError(f"{what}: no token; {LOGIN}") from None
    except errors.OfflineModeIsEnabled:
        raise UserError(f"{what}: the Hub may not be asked, HF_HUB_OFFLINE is set") from None
    except errors.GatedRepoError:
        raise UserError(f"{what}: is gated; ask for access on its page, and {LOGIN}") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{what}: no such repository, or it is private and this token may not see it") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{what}: no such revision") from None
    except errors.LocalEntryNotFoundError as error:
        raise UserError(f"{what}: {_cause(error)}") from None
    except errors.EntryNotFoundError:
        raise UserError(f"{what}: no such file") from None
    except http_error as error:
        raise UserError(f"{what}: {_message_of(error)}") from None


def http_errors() -> type[Exception]:
    """The base of all errors of the HTTP library that this version of huggingface_hub is built on."""
    from huggingface_hub import errors

    return errors.HTTPError  # type: ignore[attr-defined]  # it is httpx's, or httpx2's


LOGIN = "set HF_TOKEN or log in with: hf auth login"

MEANINGS = {
    401: f"the token is not valid; {LOGIN}",
    403: "the token has no right to do this (403); it needs write access to this account or organisation",
    409: "another change is under way (409); repeat the command",
    412: "someone has changed the repository meanwhile (412); repeat the command",
    429: "too many requests (429); wait a while and repeat the command",
}


def _message_of(error: Exception) -> str:
    """The message of the server, or why there was no answer."""
    response = getattr(error, "response", None)
    if response is None:
        return f"the Hub cannot be reached ({first_line(error)}); repeat the command"
    status = response.status_code
    if status in MEANINGS:
        return MEANINGS[status]
    message = getattr(error, "server_message", None) or response.headers.get("X-Error-Message") or first_line(error)
    again = "; repeat the command" if status >= 500 else ""
    return f"the Hub answered {status} ({' '.join(str(message).split())}){again}"


def _cause(error: BaseException) -> str:
    """Why a file is neither in the cache nor can be downloaded: the failed request behind the error says it."""
    cause = error.__cause__
    if isinstance(cause, http_errors()):
        return _message_of(cause)
    return "the Hub cannot be reached and the file is not in the cache"
