"""``maskdpo push``: data and card in one commit, so that a card never describes other data than what lies beside it."""

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maskdpo.dataset.hub import features
from maskdpo.dataset.hub.card import BEGIN, build_card, read_agreement, read_card
from maskdpo.dataset.hub.data import Contents, Files, write_data
from maskdpo.dataset.hub.history import origin_of
from maskdpo.dataset.hub.settings import PushSettings
from maskdpo.errors import InputError, UserError
from maskdpo.hub import client
from maskdpo.hub.card import CARD
from maskdpo.hub.client import hub_errors
from maskdpo.hub.push import check_name, commit, full_name
from maskdpo.io import CONFIGS

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD_ASIDE = ".README.md.before"
"""The card that was there, while the data are replaced: it may hold what people wrote."""
DATA = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".jsonl.gz", ".json.gz", ".tar", ".zip")


@dataclass(frozen=True)
class Remote:
    """A dataset as it is on the Hub now."""

    sha: str
    private: bool
    files: dict[str, str]
    """Path to SHA-256, or to git's hash of files that are no LFS files."""
    card: str


@dataclass(frozen=True)
class Pushed:
    """What came of it."""

    repo: str
    contents: Contents
    private: bool
    commit: str | None
    """URL of the commit; None: nothing had changed."""
    sent: int
    """Files that were new or changed."""
    deleted: int


def write_folder(settings: PushSettings, folder: Path) -> Contents:
    """Write the folder that would be pushed. One that is there must be such a folder; a card in it is built on.

    A run that is killed leaves no card beside data that it does not describe; the next one builds on it nonetheless.
    """
    features.require_datasets()
    check_name(settings.repo, "`repo`")
    card, aside = folder / CARD, folder / CARD_ASIDE
    before = next((read_card(file) for file in (card, aside) if file.is_file()), "")
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and BEGIN not in before)):
        raise InputError("is there already and is no dataset folder of maskdpo; name another", path=folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary)
        contents = _build(settings, made, before)
        folder.mkdir(exist_ok=True)
        if card.exists():
            card.replace(aside)
        for config in CONFIGS:
            shutil.rmtree(folder / config, ignore_errors=True)
            (made / config).rename(folder / config)
        (made / CARD).replace(card)
        aside.unlink(missing_ok=True)
    return contents


def push(settings: PushSettings) -> Pushed:
    """Write the data beside, compare with what is on the Hub, and commit what differs.

    What was uploaded before a failure lies on the Hub unseen, and is not uploaded again when the command is repeated.
    """
    features.require_datasets()
    from huggingface_hub import HfApi

    api = HfApi()
    repo = full_name(settings.repo, "`repo`")
    remote = _remote(api, repo)
    if remote is not None:
        _check_visibility(repo, remote, settings.private)
    with tempfile.TemporaryDirectory(prefix="maskdpo-push-") as temporary:
        folder = Path(temporary)
        contents = _build(settings, folder, remote.card if remote else "", repo=repo)
        if remote is not None and not settings.overwrite_schema:
            _check_schema(repo, remote, contents)
        files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
        there = remote.files if remote else {}
        changed = {name: file for name, file in files.items() if there.get(name) not in _hashes(file)}
        stale = [name for name in there if name not in files and _is_ours(name)]
        private = remote.private if remote else settings.private is not False
        url = None
        if changed or stale:
            if remote is None:
                with hub_errors(f"creating {repo}"):
                    api.create_repo(repo, repo_type="dataset", private=private)
                remote = _remote(api, repo)
                assert remote is not None
            message = "Data and card, with maskdpo push"
            url = commit(repo, changed, stale, repo_type="dataset", parent=remote.sha, message=message)
    return Pushed(repo, contents, private, url, len(changed), len(stale))


def _build(settings: PushSettings, folder: Path, before: str, *, repo: str | None = None) -> Contents:
    files = Files(settings.prompts, settings.annotations, settings.pairs)
    agreement = read_agreement(settings.agreement, settings.annotations) if settings.agreement else None
    origin = origin_of(files)
    contents = write_data(folder, files)
    card = build_card(
        before,
        repo=repo or settings.repo,
        license=settings.license,
        contents=contents,
        origin=origin,
        agreement=agreement,
        folder=folder,
    )
    (folder / CARD).write_text(card, encoding="utf-8")
    return contents


def _remote(api: "HfApi", repo: str) -> Remote | None:
    """None where there is no such dataset (or where this token may not know of it)."""
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    with hub_errors(f"hub:{repo}"):
        try:
            info = api.dataset_info(repo)
        except RepositoryNotFoundError:
            return None
        sha = str(info.sha)
        tree = api.list_repo_tree(repo, recursive=True, revision=sha, repo_type="dataset")
        files = {f.path: f.lfs.sha256 if f.lfs else f.blob_id for f in tree if isinstance(f, RepoFile)}
    card = ""
    if CARD in files:
        card = read_card(client.download(client.Snapshot(repo, sha, ()), CARD), shown=f"hub:{repo}: {CARD}")
    return Remote(sha, bool(info.private), files, card)


def _check_visibility(repo: str, remote: Remote, private: bool | None) -> None:
    if private is not None and private != remote.private:
        state, flag = ("private", "--public") if remote.private else ("public", "--private")
        raise UserError(
            f"{repo} is {state} already, and {flag} changes no dataset that is there: do it in its settings"
        )


def _check_schema(repo: str, remote: Remote, contents: Contents) -> None:
    """Who loads the dataset relies on its columns: they change only if that is meant."""
    from huggingface_hub import HfFileSystem

    from maskdpo.io.parquet import arrow

    hint = "push to another name, or replace them with `overwrite_schema`"
    if BEGIN not in remote.card:
        others = [name for name in remote.files if name.endswith(DATA)]
        if others:
            raise UserError(f"{repo} holds data that maskdpo did not push ({others[0]}); {hint}")
    for config, part in contents.parts.items():
        shard = next((name for name in sorted(remote.files) if name.startswith(f"{config}/") and _is_ours(name)), None)
        if shard is None:
            continue
        with hub_errors(f"hub:{repo}: {shard}"), HfFileSystem().open(f"datasets/{repo}@{remote.sha}/{shard}") as file:
            before = arrow().parquet.read_schema(file)
        found = features.differences(before, features.features_of(config, chat=part.chat))
        if found:
            raise UserError(f"{repo} has other columns in {config} ({', '.join(found)}); {hint}")


def _is_ours(name: str) -> bool:
    """A shard that a push has written; all else in a repository is other people's."""
    config, _, file = name.partition("/")
    return config in CONFIGS and "/" not in file and file.endswith(".parquet") and file.startswith(("train-", "test-"))


def _hashes(file: Path) -> tuple[str, str]:
    """SHA-256 (LFS files), and what git calls the content (others)."""
    with file.open("rb") as handle:
        large = hashlib.file_digest(handle, "sha256").hexdigest()
    small = ""
    if file.name == CARD:
        content = file.read_bytes()
        small = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return large, small
