"""The settings of ``maskdpo annotate``, and the judge and splitter that they name."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from maskdpo import registry
from maskdpo.annotate.judge import Judge, MissingReference
from maskdpo.annotate.judges import JUDGES, get_judge
from maskdpo.backends import make_backend
from maskdpo.backends.settings import TRANSFORMERS, BackendSettings, refuse_unused, unused_by
from maskdpo.io import read_records
from maskdpo.redact import without_secrets
from maskdpo.registry import named_in
from maskdpo.schemas import Response
from maskdpo.settings import (
    AnnotationsFile,
    DryRun,
    KeyValues,
    Limit,
    Option,
    PromptsFile,
    Restart,
    Settings,
    SummaryFile,
    settings_of,
    several,
)
from maskdpo.shard import ShardOption
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
    model: Annotated[str | None, Option("the model that judges.", used_by=("llm", "classifier"))] = None
    protocol: Annotated[
        str,
        Option(
            "how the judge asks: `single` (one call per sentence), `joint` (one call per answer), `staged` (is "
            "there a fact? evidence, verdict: three turns per sentence), `yes-no` (short passages, for small models), "
            "`granite-guardian`, or a folder of templates.",
            used_by=("llm",),
        ),
    ] = "single"
    votes: Annotated[
        int,
        Field(ge=1),
        Option(
            "verdicts to sample per sentence: the most frequent one is the label, its share the confidence.",
            used_by=("llm",),
        ),
    ] = 1
    judge_options: Annotated[
        KeyValues,
        Field(alias="judge_option"),
        Option("KEY=VALUE for the judge itself; repeat the option for more.", metavar="KEY=VALUE"),
    ] = {}

    def make_judge(self) -> Judge:
        """The judge that the settings name, with its backend where it asks for one.

        With ``workers`` they hold the model of the backend, or the whole judge where it runs the model itself.
        """
        if self.workers is not None and not registry.asks_for(JUDGES[self.judge], "backend"):
            from maskdpo.annotate.spread import SpreadJudge

            return SpreadJudge(self)
        return get_judge(
            self.judge,
            make_backend=lambda: make_backend(str(self.model), self),
            name_model=lambda: str(self.model),
            settings=self,
            options=self.judge_options | self._own_names(),
        )

    def _own_names(self) -> dict[str, Any]:
        """Options of the judge itself that have a name of their own."""
        return {name: getattr(self, name) for name in ("protocol", "votes") if name in self.given()}

    @model_validator(mode="after")
    def _no_unused_settings(self) -> Self:
        factory = JUDGES[self.judge]
        asks = {what for what in ("backend", "model", "settings") if registry.asks_for(factory, what)}
        if self.model is None and asks & {"backend", "model"}:
            raise ValueError(f"`judge` {self.judge} needs `model`: the model that judges")
        refuse_unused(self, "judge", self._unused_by_the_judge(asks))
        refuse_unused(self, "backend", unused_by(self.backend))
        if twice := self._own_names().keys() & self.judge_options.keys():
            raise ValueError(f"`{min(twice)}` is given twice, the other time in `judge_options`")
        return self

    def _unused_by_the_judge(self, asks: set[str]) -> dict[str, tuple[str, ...]]:
        """The settings that are for other judges, with who uses them.

        Args:
            asks: what the factory of the judge asks for. One that asks for a ``backend`` uses all settings. One that
                asks for ``settings`` runs the model itself, ours as the backend ``transformers`` does.
        """
        if "backend" in asks:
            return {}
        unused: dict[str, tuple[str, ...]] = {"protocol": ("llm",), "votes": ("llm",)}
        unused |= {} if "model" in asks else {"model": ("llm", "classifier")}
        for setting in settings_of(BackendSettings):
            here = TRANSFORMERS[0] in setting.option.used_by
            if "settings" not in asks or (self.judge in JUDGES and not here):
                unused[setting.name] = ("llm", "classifier") if here else ("llm",)
        return unused


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
    responses: Annotated[
        tuple[Path, ...],
        Field(min_length=1),
        several(None),
        Option("Response records, of one file or several.", argument=True, metavar="RESPONSES..."),
    ]
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
    missing_reference: Annotated[
        MissingReference,
        Option(
            "Where the judge compares with a reference and a prompt has none: `fail` before anything is judged, or "
            "`skip`: the sentences of its answers get the status `no_reference`."
        ),
    ] = "fail"
    retry_failed: Annotated[
        bool, Option("Ask again for the sentences that have no verdict, and for these sentences only.")
    ] = False
    limit: Limit = None
    shard: ShardOption = None
    dry_run: DryRun = False
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
