"""The settings of ``maskdpo annotate``, and the judge and splitter that they name."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from maskdpo import registry
from maskdpo.annotate.judge import Judge
from maskdpo.annotate.judges import JUDGES, get_judge
from maskdpo.backends import make_backend
from maskdpo.backends.base import Backend
from maskdpo.backends.settings import BackendSettings
from maskdpo.errors import UserError
from maskdpo.io import read_records
from maskdpo.redact import without_secrets
from maskdpo.registry import named_in
from maskdpo.schemas import Response
from maskdpo.settings import AnnotationsFile, KeyValues, Option, PromptsFile, Restart, Settings, SummaryFile
from maskdpo.text.splitters import Splitter, get_splitter

LEARNED_FROM = 2000
"""A splitter that learns from texts learns from so many responses: the first ones."""


class JudgeSettings(BackendSettings):
    """Who judges, and how."""

    judge: Annotated[
        str,
        named_in("maskdpo.annotate.judges:JUDGES"),
        Option(
            "`lexical` (needs no model), `classifier` (a small model that scores sentences), `llm`, or a judge of your "
            "own: `package.module:factory` or `./file.py:factory`."
        ),
    ]
    model: Annotated[str | None, Option("The model that judges, for `--judge llm` and `--judge classifier`.")] = None
    protocol: Annotated[
        str,
        Option(
            "How the `llm` judge asks: `single` (one call per sentence), `joint` (one call per answer), `staged` (is "
            "there a fact? evidence, verdict: three turns per sentence), `yes-no` (short passages, for small models), "
            "`granite-guardian`, or a folder of templates."
        ),
    ] = "single"
    votes: Annotated[
        int,
        Field(ge=1),
        Option("Verdicts to sample per sentence: the most frequent one is the label, its share the confidence."),
    ] = 1
    judge_options: Annotated[
        KeyValues,
        Field(alias="judge_option"),
        Option("KEY=VALUE for the judge itself; repeat the option for more.", metavar="KEY=VALUE"),
    ] = {}

    def make_judge(self) -> Judge:
        """The judge that the settings name, with its backend where it asks for one."""

        def model() -> str:
            if self.model is None:
                raise UserError(f"`judge` {self.judge} needs `model`: the model that judges")
            return self.model

        def backend() -> Backend:
            return make_backend(model(), self)

        told = {name: getattr(self, name) for name in ("protocol", "votes") if name in self.given()}
        factory = JUDGES[self.judge]
        speaks = registry.asks_for(factory, "backend")
        if (told or self.template_options) and not speaks:
            raise UserError(f"`protocol`, `votes` and `template_options` go with `judge` llm, not with {self.judge}")
        if self.model is not None and not (speaks or registry.asks_for(factory, "model")):
            raise UserError(f"`model` goes with `judge` llm or classifier, not with {self.judge}")
        return get_judge(
            self.judge, make_backend=backend, name_model=model, settings=self, options=self.judge_options | told
        )


CalibrationFile = Annotated[
    Path | None,
    Option("Decide the labels by this calibration of the judge, which `maskdpo calibrate` has written."),
]
LeastConfidence = Annotated[
    float | None,
    Field(ge=0, le=1),
    Option(
        "Verdicts whose class (right, wrong, no fact) is less probable than P get no label, but the status `unsure`.",
        metavar="P",
    ),
]


class AnnotateSettings(JudgeSettings):
    """What ``maskdpo annotate`` can be told."""

    prompts: PromptsFile
    responses: Annotated[Path, Option("Response records (JSONL).", argument=True)]
    out: Annotated[Path, Option("Annotation records, appended as they come.")]
    splitter: Annotated[
        str,
        named_in("maskdpo.text.splitters:SPLITTERS"),
        Option("`markdown`, `spacy`, `spacy:PIPELINE`, `nltk`, or a splitter of your own."),
    ] = "markdown"
    splitter_options: Annotated[
        KeyValues,
        Field(alias="splitter_option"),
        Option("KEY=VALUE for the splitter itself; repeat the option for more.", metavar="KEY=VALUE"),
    ] = {}
    calibration: CalibrationFile = None
    min_confidence: LeastConfidence = None
    retry_failed: Annotated[
        bool, Option("Ask again for the sentences that have no verdict, and for these sentences only.")
    ] = False
    summary: SummaryFile = None
    restart: Restart = False

    def own_options(self) -> dict[str, Any]:
        """What judge and splitter are told, where they are told anything: part of what decides the labels."""
        told = {"judge_options": self.judge_options, "splitter_options": self.splitter_options}
        return {name: without_secrets(options) for name, options in told.items() if options}

    def make_splitter(self) -> Splitter:
        return get_splitter(self.splitter, self._sample, self.splitter_options)

    def _sample(self) -> Sequence[str]:
        return [record.response for record in islice(read_records(self.responses, Response), LEARNED_FROM)]


class RelabelSettings(Settings):
    """What ``maskdpo relabel`` can be told."""

    annotations: AnnotationsFile
    out: Annotated[Path, Option("Annotation records with the new labels (JSONL, or Parquet if it ends in .parquet).")]
    calibration: CalibrationFile = None
    min_confidence: LeastConfidence = None
    summary: SummaryFile = None
