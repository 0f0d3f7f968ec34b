"""``maskdpo push``: data and card in one commit, so that a card always describes the data beside it."""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from maskdpo.dataset.hub import features
from maskdpo.dataset.hub.card import BEGIN, build_card, read_agreement, read_card
from maskdpo.dataset.hub.data import Contents, Files, write_data
from maskdpo.dataset.hub.origin import origin_of
from maskdpo.dataset.hub.settings import PushSettings
from maskdpo.errors import InputError, UserError
from maskdpo.html.render import SummaryTable
from maskdpo.hub import client
from maskdpo.hub.client import hub_errors
from maskdpo.hub.header import CARD
from maskdpo.hub.push import check_name, commit, full_name
from maskdpo.io import CONFIGS, sha256
from maskdpo.schemas import Decision

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD_ASIDE = ".README.md.before"
"""Where the earlier card is kept while the data are replaced, because people may have edited it."""
DATA_SUFFIXES = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".jsonl.gz", ".json.gz", ".tar", ".zip")


@dataclass(frozen=True)
class RemoteDataset:
    """A dataset as it is on the Hub now."""

    sha: str
    private: bool
    files: dict[str, str]
    """From path to SHA-256, or to the git hash of a file that is not stored by LFS."""
    card: str


@dataclass(frozen=True)
class PushResult:
    """What was pushed."""

    repo: str
    contents: Contents
    private: bool
    commit: str | None
    """URL of the commit; None: nothing has changed."""
    sent: int
    """Number of files that were new or changed."""
    deleted: int


class People(NamedTuple):
    """What people have decided, and how far they agree, for the card."""

    decisions: Sequence[Decision] = ()
    agreement: Sequence[SummaryTable] = ()


NOBODY = People()


def write_folder(settings: PushSettings, folder: Path, people: People = NOBODY) -> Contents:
    """Write the folder that would be pushed.

    An existing folder must be one that this function wrote; what people wrote into its card is kept, also by the next
    run after one that was killed. No card ever lies beside data that it does not describe.
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
        contents = _build(settings, made, before, people)
        folder.mkdir(exist_ok=True)
        if card.exists():
            card.replace(aside)
        for config in CONFIGS:
            shutil.rmtree(folder / config, ignore_errors=True)
            if (made / config).is_dir():
                (made / config).rename(folder / config)
        (made / CARD).replace(card)
        aside.unlink(missing_ok=True)
    return contents


def push(settings: PushSettings, people: People = NOBODY) -> PushResult:
    """Write the data into a temporary folder, compare them with those on the Hub, and commit the differences.

    Files that were uploaded before a failure are not uploaded again when the command is repeated.
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
        contents = _build(settings, folder, remote.card if remote else "", people, repo=repo)
        if remote is not None and not settings.overwrite_schema:
            _check_schema(repo, remote, contents)
        files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
        there = remote.files if remote else {}
        changed = {name: file for name, file in files.items() if there.get(name) not in _hashes(file)}
        stale = [name for name in there if name not in files and _is_pushed_shard(name)]
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
    return PushResult(repo, contents, private, url, len(changed), len(stale))


def _build(settings: PushSettings, folder: Path, before: str, people: People, *, repo: str | None = None) -> Contents:
    data = Files(settings.prompts, settings.annotations, settings.pairs)
    agreement = read_agreement(settings.agreement, data.annotations) if settings.agreement else None
    origin = origin_of(data, names=settings.names)
    contents = write_data(folder, data, people.decisions)
    card = build_card(
        before,
        repo=repo or settings.repo,
        license=settings.license,
        contents=contents,
        origin=origin,
        agreement=agreement,
        people=people.agreement,
        folder=folder,
    )
    (folder / CARD).write_text(card, encoding="utf-8")
    return contents


def _remote(api: "HfApi", repo: str) -> RemoteDataset | None:
    """The dataset on the Hub; None where there is none (or where this token may not see it)."""
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
    return RemoteDataset(sha, bool(info.private), files, card)


def _check_visibility(repo: str, remote: RemoteDataset, private: bool | None) -> None:
    if private is not None and private != remote.private:
        state = "private" if remote.private else "public"
        raise UserError(
            f"{repo} is {state} already, and `private` is for new datasets only: change who can see it in its settings "
            "on the Hub"
        )


def _check_schema(repo: str, remote: RemoteDataset, contents: Contents) -> None:
    """Refuse to change the columns of a dataset, which others rely on, unless that is asked for."""
    from huggingface_hub import HfFileSystem

    from maskdpo.io.parquet import arrow

    hint = "push to another name, or replace them with `overwrite_schema`"
    if BEGIN not in remote.card:
        others = [name for name in remote.files if name.endswith(DATA_SUFFIXES)]
        if others:
            raise UserError(f"{repo} holds data that maskdpo did not push ({others[0]}); {hint}")
    for config, part in contents.parts.items():
        shard = next(
            (name for name in sorted(remote.files) if name.startswith(f"{config}/") and _is_pushed_shard(name)), None
        )
        if shard is None:
            continue
        with hub_errors(f"hub:{repo}: {shard}"), HfFileSystem().open(f"datasets/{repo}@{remote.sha}/{shard}") as file:
            before = arrow().parquet.read_schema(file)
        found = features.differences(before, features.features_of(config, chat=part.chat))
        if found:
            raise UserError(f"{repo} has other columns in {config} ({', '.join(found)}); {hint}")


def _is_pushed_shard(name: str) -> bool:
    """Whether a push wrote this file; other files of a repository are never deleted."""
    config, _, file = name.partition("/")
    return config in CONFIGS and "/" not in file and file.endswith(".parquet") and file.startswith(("train-", "test-"))


def _hashes(file: Path) -> tuple[str, str]:
    """The SHA-256 of a file (for LFS files), and its git hash (for others)."""
    if file.name != CARD:
        return sha256(file), ""
    content = file.read_bytes()
    return sha256(file), hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
