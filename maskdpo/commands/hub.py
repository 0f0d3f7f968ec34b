"""``maskdpo push``."""

from typing import TYPE_CHECKING

from maskdpo import console
from maskdpo.dataset.hub.settings import PushSettings

if TYPE_CHECKING:
    from maskdpo.dataset.hub.data import Contents


def push(settings: PushSettings) -> None:
    """Publish labelled data as a dataset on the Hugging Face Hub: pairs, annotations, prompts, and a card.

    Data and card come in one commit; repeat the command after a failure. The token is $HF_TOKEN, or that of
    `hf auth login`. docs/hub.md shows how to read it back.
    """
    from maskdpo.dataset.hub.push import People, write_folder
    from maskdpo.dataset.hub.push import push as run
    from maskdpo.people.publish import published

    people = People(*published(settings.decisions, names=settings.names))
    if settings.dry_run:
        _show(f"push (dry run) -> {settings.dry_run}", write_folder(settings, settings.dry_run, people))
        return
    done = run(settings, people)
    _show(f"push -> {done.repo} ({'private' if done.private else 'public'})", done.contents)
    if done.commit is None:
        console.say(f"{done.repo}: nothing has changed, so there is no commit")
    else:
        sent, deleted = console.counted(done.sent, "file"), console.counted(done.deleted, "old one")
        console.say(f"{sent} sent, {deleted} deleted: {done.commit}")


def _show(title: str, contents: "Contents") -> None:
    rows = [(config, part.rows.get("train"), part.rows.get("test")) for config, part in contents.parts.items()]
    console.table(title, ("rows", "train", "test"), rows)
