"""The settings of ``maskdpo run``."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from maskdpo.settings import Option, Settings


class RunSettings(Settings):
    """What ``maskdpo run`` can be told."""

    file: Annotated[Path, Option("The pipeline.", argument=True, metavar="PIPELINE.yaml")]
    start: Annotated[
        str | None,
        Field(alias="from"),
        Option(
            "Begin at this stage: what was made before is taken as it is; this stage and all later ones are set "
            "aside and made anew.",
            metavar="STAGE",
        ),
    ] = None
    dry_run: Annotated[bool, Option("Only show what would be done, and why.")] = False
