"""The settings of ``maskdpo agree`` and ``gold``."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from maskdpo.settings import Option, Settings

DecisionFiles = Annotated[
    tuple[Path, ...],
    Field(min_length=1),
    Option(
        "Decisions of people: files that `maskdpo review` or `import` has written, of one reviewer or several.",
        argument=True,
    ),
]


class AgreeSettings(Settings):
    """What ``maskdpo agree`` can be told."""

    decisions: DecisionFiles
    all_sentences: Annotated[
        bool,
        Option(
            "Count sentences that were not drawn at random too (of the queues `uncertain` and `disagreement`, and "
            "imported ones of unknown origin), each once. The figures then describe these sentences, not the answers."
        ),
    ] = False
    json_file: Annotated[Path | None, Field(alias="json"), Option("Also write the figures to this file, as JSON.")] = (
        None
    )


class GoldSettings(Settings):
    """What ``maskdpo gold`` can be told."""

    decisions: DecisionFiles
    out: Annotated[Path, Option("Annotations without a judge, for `evaluate --gold`, `calibrate` and `train-judge`.")]
