"""The settings of ``maskdpo push``."""

from pathlib import Path
from typing import Annotated

from maskdpo.settings import Option, Settings


class PushSettings(Settings):
    """What ``maskdpo push`` can be told."""

    prompts: Annotated[Path, Option("Prompt records (JSONL or Parquet).", argument=True)]
    annotations: Annotated[Path, Option("Annotation records.", argument=True)]
    pairs: Annotated[Path, Option("Pair records; NAME.test.jsonl beside them is the test split.", argument=True)]
    repo: Annotated[str, Option("The dataset on the Hub: `user/name`, or `name` for your own account.")]
    license: Annotated[str, Option("Licence of the data, by its id on the Hub: `cc-by-4.0`, `apache-2.0` ...")]
    decisions: Annotated[
        tuple[Path, ...],
        Option(
            "Also publish the decisions of people behind the gold labels, and how far they agree; repeat the option "
            "for more files.",
            metavar="DECISIONS",
        ),
    ] = ()
    names: Annotated[bool, Option("Publish the names of reviewers, and commands that have them.")] = False
    agreement: Annotated[
        Path | None, Option("What `evaluate ANNOTATIONS --gold GOLD --json FILE` wrote, for the card.")
    ] = None
    dry_run: Annotated[
        Path | None, Option("Write the folder that would be pushed, and push nothing.", metavar="FOLDER")
    ] = None
    private: Annotated[
        bool | None, Option("Who sees a new dataset. [default: private]", flags="--private/--public")
    ] = None
    overwrite_schema: Annotated[bool, Option("Replace the data of a dataset that has other columns.")] = False
