"""The settings of encoding: for training, and for ``inspect`` and whatever else only shows which tokens train."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from maskdpo.registry import named_in
from maskdpo.settings import MODEL_HELP, TEMPLATE_OPTION_HELP, KeyValues, Option, PairsFile, Settings

IN_AND_OUT = "Input and output"
METHOD = "Method: which tokens train"

EosPolicy = Literal["keep", "last_sentence", "drop"]
ReasoningPolicy = Literal["keep", "drop"]


class EncodeSettings(Settings):
    """How pairs become tokens and weights."""

    model: Annotated[str, Option(MODEL_HELP, IN_AND_OUT)]
    method: Annotated[
        str,
        named_in("maskdpo.train.data.weights:METHODS"),
        Option(
            "`mask-dpo`: right sentences of the chosen answer, wrong sentences of the rejected answer. `dpo`: all "
            "sentences. `chosen-only`, `rejected-only`: only that side is masked. `strict`: as mask-dpo, but "
            "sentences without a fact count as wrong. `soft`: as mask-dpo, times the confidence of the label. Or a "
            "mask of your own.",
            METHOD,
        ),
    ] = "mask-dpo"
    eos: Annotated[
        EosPolicy,
        Option("The end-of-turn token: always trained, trained as its last sentence is, or never trained.", METHOD),
    ] = "keep"
    max_length: Annotated[
        int, Field(ge=2), Option("Longest prompt and answer in tokens; answers are cut at their end.", METHOD)
    ] = 2048
    reasoning: Annotated[
        ReasoningPolicy,
        Option("What a reasoning model wrote before its answer: kept as context with weight 0, or left out.", METHOD),
    ] = "keep"
    template_options: Annotated[
        KeyValues,
        Field(alias="template_option"),
        Option(
            f"{TEMPLATE_OPTION_HELP} Only for pairs that do not record what theirs was told.",
            METHOD,
            metavar="KEY=VALUE",
        ),
    ] = {}

    @property
    def factor_beyond_shorter(self) -> float:
        """Factor on the weights beyond the length of the shorter answer: 1, unless the loss of a training asks for
        another one."""
        return 1.0

    @property
    def needs_scores(self) -> bool:
        """Whether pairs that lack a score are dropped: only the loss of a training may ask for that."""
        return False


class InspectSettings(EncodeSettings):
    """What ``maskdpo inspect`` can be told."""

    pairs: PairsFile
    json_file: Annotated[
        Path | None,
        Field(alias="json"),
        Option("Write pair, side, input_ids and weights of all pairs as JSON lines to this file."),
    ] = None
    show: Annotated[int, Field(ge=0), Option("Pairs to print.")] = 3
