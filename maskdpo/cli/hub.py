"""``maskdpo push``."""

from pathlib import Path
from typing import Annotated

import typer

from maskdpo import console
from maskdpo.cli.app import app


@app.command()
def push(
    prompts: Annotated[Path, typer.Argument(help="Prompt records (JSONL or Parquet).", show_default=False)],
    annotations: Annotated[Path, typer.Argument(help="Annotation records.", show_default=False)],
    pairs: Annotated[
        Path, typer.Argument(help="Pair records; NAME.test.jsonl beside them is the test split.", show_default=False)
    ],
    repo: Annotated[str, typer.Option(help="The dataset on the Hub: `user/name`, or `name` for your own account.")],
    license: Annotated[str, typer.Option(help="Licence of the data, by the Hub's id: `cc-by-4.0`, `apache-2.0` ...")],
    agreement: Annotated[
        Path | None,
        typer.Option(help="What `evaluate ANNOTATIONS --gold GOLD --json FILE` wrote, for the card."),
    ] = None,
    dry_run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the folder that would be pushed, and push nothing.")
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who sees a new dataset. [default: private]", show_default=False),
    ] = None,
    overwrite_schema: Annotated[
        bool, typer.Option("--overwrite-schema", help="Replace the data of a dataset that has other columns.")
    ] = False,
) -> None:
    """Publish labelled data as a dataset on the Hugging Face Hub: pairs, annotations, prompts, and a card.

    Data and card come in one commit; repeat the command after a failure. The token is $HF_TOKEN, or that of
    `hf auth login`. docs/hub.md shows how to read it back.
    """
    from maskdpo.dataset.hub.data import Contents, Files
    from maskdpo.dataset.hub.push import Wanted, write_folder
    from maskdpo.dataset.hub.push import push as run

    def show(title: str, contents: Contents) -> None:
        rows = [(config, part.rows.get("train"), part.rows.get("test")) for config, part in contents.parts.items()]
        console.table(title, ("rows", "train", "test"), rows)

    wanted = Wanted(repo, Files(prompts, annotations, pairs), license, agreement, private, overwrite_schema)
    if dry_run:
        show(f"push (dry run) -> {dry_run}", write_folder(wanted, dry_run))
        return
    done = run(wanted)
    show(f"push -> {done.repo} ({'private' if done.private else 'public'})", done.contents)
    if done.commit is None:
        console.say(f"{done.repo}: nothing has changed, so there is no commit")
    else:
        console.say(f"{done.sent} files sent, {done.deleted} old ones deleted: {done.commit}")
