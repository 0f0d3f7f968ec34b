"""The settings of ``maskdpo calibrate``."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from maskdpo.settings import AnnotationsFile, Option, OptionalPrompts, Settings
from maskdpo.verdicts.aim import parse_aim


def _aim(text: str) -> str:
    return str(parse_aim(text))


class CalibrateSettings(Settings):
    """What ``maskdpo calibrate`` can be told."""

    annotations: AnnotationsFile
    gold: Annotated[Path, Option("Annotations with human labels of some of these answers.")]
    out: Annotated[Path, Option("The calibration (JSON), for `annotate` and `relabel`.")]
    prompts: OptionalPrompts = None
    aim: Annotated[
        str,
        AfterValidator(_aim),
        Option(
            "`balanced`: the greatest balanced accuracy of right against wrong. `precision=P`: right and wrong are "
            "given only where a share P of such sentences agrees with gold; the others are `unsure`."
        ),
    ] = "balanced"
    abstain: Annotated[
        float,
        Field(ge=0, lt=1),
        Option("Sentences whose two best classes are closer than this are `unsure`.", metavar="WIDTH"),
    ] = 0.0
    plot: Annotated[
        Path | None, Option("Also draw the reliability plot: PNG, SVG or PDF, by the ending of the name.")
    ] = None
    seed: Annotated[int, Field(ge=0), Option("Seed of the folds.")] = 0
