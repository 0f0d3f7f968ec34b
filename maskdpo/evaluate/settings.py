"""The settings of ``maskdpo evaluate`` and ``report``."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from maskdpo.registry import named_in
from maskdpo.settings import AnnotationsFiles, Limit, Option, OptionalPrompts, Settings, several
from maskdpo.verdicts.gold import Drawn

GoldDrawn = Annotated[
    Drawn,
    Option(
        "How the gold sentences were drawn, for prediction-powered estimates: `recorded` (with the probability in "
        "`inclusion` of each sentence; sentences without one are left out of these estimates) or `random` (all "
        "sentences, or all whole answers, with the same probability)."
    ),
]


EffectsFiles = Annotated[
    tuple[Path, ...],
    several(None),
    Option(
        "A file of `maskdpo side-effects`, to show beside the factuality: what a training has changed in answers that "
        "it was not about; repeat the option for more.",
        metavar="FILE",
    ),
]


Labels = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
    Field(alias="label"),
    Option(
        "With `--compare`: what tables and plots call these annotations; repeat the option for each file of "
        "`--compare`, in their order. [default: `before` and `after` in tables of two files, else the names of the "
        "files]",
        metavar="NAME",
    ),
]


class EvaluateSettings(Settings):
    """What ``maskdpo evaluate`` can be told."""

    annotations: AnnotationsFiles
    prompts: OptionalPrompts = None
    limit: Limit = None
    gold: Annotated[
        Path | None, Option("Annotations with human labels: how well do the labels of the judge agree with them?")
    ] = None
    gold_drawn: GoldDrawn = "recorded"
    compare: Annotated[
        tuple[Path, ...],
        several("annotations"),
        Option(
            "Annotations of another model (after), to set beside these (before); repeat the option to compare more "
            "models in one table; a second table sets each further one beside the first of them."
        ),
    ] = ()
    labels: Labels = ()
    compare_gold: Annotated[
        Path | None,
        Option(
            "With `--compare`: human labels of the answers of after. [default: the file of `--gold`, by id and text]"
        ),
    ] = None
    side_effects: EffectsFiles = ()
    length_penalty: Annotated[
        int | None,
        Field(ge=1),
        Option(
            "Add FActScore's precision, in which an answer with n < GAMMA right and wrong sentences is multiplied by "
            "exp(1 - GAMMA/n).",
            metavar="GAMMA",
        ),
    ] = None
    json_file: Annotated[Path | None, Field(alias="json"), Option("Also write the figures to this file, as JSON.")] = (
        None
    )
    plot: Annotated[
        Path | None,
        Option(
            "With `--compare`: also draw the main figures of every file, with intervals, into this file (.png, .svg or "
            ".pdf)."
        ),
    ] = None

    @property
    def compared(self) -> Path | None:
        """The file that these annotations are set beside; the first one of several."""
        return self.compare[0] if self.compare else None


class ReportSettings(Settings):
    """What ``maskdpo report`` can be told."""

    annotations: Annotated[
        Path,
        Option(
            "Annotation or pair records, or a training: the folder that `train` has written, or its metrics.jsonl.",
            argument=True,
        ),
    ]
    out: Annotated[Path, Option("The HTML file.")]
    compare: Annotated[
        tuple[Path, ...],
        several(None),
        Option(
            "Annotations from after, or another training, to set beside these; repeat the option for annotations of "
            "more models: tables and a plot show all of them, and the answers of the last stand beside these."
        ),
    ] = ()
    labels: Labels = ()
    prompts: OptionalPrompts = None
    side_effects: EffectsFiles = ()
    gold: Annotated[Path | None, Option("Annotations with human labels.")] = None
    gold_drawn: GoldDrawn = "recorded"
    model: Annotated[
        str | None,
        Option("For pairs: mark the very tokens that train with the tokenizer of this model, not whole sentences."),
    ] = None
    method: Annotated[
        str | None,
        named_in("maskdpo.train.data.weights:METHODS"),
        Option("With `--model`: which tokens train; see `maskdpo train --help`. [default: mask-dpo]"),
    ] = None
    title: Annotated[str | None, Option("Heading of the page.")] = None
