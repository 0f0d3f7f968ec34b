"""The settings of ``maskdpo build-pairs``; docs/pairs.md gives the reasons for the defaults."""

import math
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from maskdpo.dataset.score import is_bounded
from maskdpo.registry import named_in
from maskdpo.settings import AnnotationsFiles, Limit, Option, PromptsFile, Settings, SummaryFile

ANSWERS = "Which answers take part"
PAIRS = "Which pairs are kept"


class PairOptions(Settings):
    """What decides which pairs are built."""

    strategy: Annotated[
        str,
        named_in("maskdpo.dataset.strategies:STRATEGIES"),
        Option(
            "Which answers to a prompt make pairs. `best-worst`: the most and the least factual one, as in the "
            "paper. `all`: every two. `top-bottom`: the k best with the k worst, the best with the worst first. "
            "`best-random`: the best with one drawn from all that are worse by the margin. Or a function of your own."
        ),
    ] = "best-worst"
    k: Annotated[int | None, Field(ge=1), Option("`top-bottom`: the most pairs per prompt. [default: 2]")] = None
    score: Annotated[
        str,
        named_in("maskdpo.dataset.score:SCORES"),
        Option(
            "How factual an answer is, in sentences. `right-of-all`: right / all. `right-of-judged`: right / judged. "
            "`precision`: right / (right + wrong). `anah`: 1 - wrong / judged, which is won by saying nothing that "
            "can be checked. `difference`: right - wrong, the only score that is not between 0 and 1. Or a function "
            "of your own."
        ),
    ] = "right-of-all"
    confidence_weighted: Annotated[
        bool, Option("In the score, a sentence counts with the confidence of the judge, where the judge gives one.")
    ] = False
    min_sentences: Annotated[int, Field(ge=1), Option("Least number of sentences per answer.", ANSWERS)] = 1
    min_coverage: Annotated[
        float,
        Field(ge=0, le=1),
        Option("Least share of the sentences of an answer that must have a verdict of the judge.", ANSWERS),
    ] = 0.8
    min_right: Annotated[
        int, Field(ge=0), Option("Least number of right sentences in an answer to be chosen.", ANSWERS)
    ] = 1
    min_margin: Annotated[
        float,
        Field(ge=0),
        Option("Least difference of the two scores, in the unit of `--score` (`difference`: sentences).", PAIRS),
    ] = 0.1
    max_length_ratio: Annotated[
        float, Field(ge=1), Option("The longer answer over the shorter one, in characters; `inf`: no limit.", PAIRS)
    ] = 4.0
    max_similarity: Annotated[
        float,
        Field(ge=0, le=1),
        Option("How alike the two texts may be, 1 - edits / characters; 1: only equal texts are dropped.", PAIRS),
    ] = 0.95
    max_per_prompt: Annotated[
        int | None, Field(ge=1), Option("The most pairs per prompt, drawn at random. [default: no limit]", PAIRS)
    ] = None
    max_per_topic: Annotated[
        int | None,
        Field(ge=1),
        Option(
            "The most pairs per topic, drawn at random: more topics teach more than more questions. "
            "[default: no limit]",
            PAIRS,
        ),
    ] = None
    test_size: Annotated[
        float, Field(ge=0, le=0.99), Option("Share of topics held out for testing; a topic is never split.")
    ] = 0.1
    limit: Limit = None
    seed: Annotated[
        int,
        Field(ge=0),
        Option("Seed of the split and of all random draws; the order of the input never matters."),
    ] = 0

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.k is not None and self.strategy in ("best-worst", "all", "best-random"):
            raise ValueError("`k` goes with `strategy` top-bottom")
        if self.min_margin > (1.0 if is_bounded(self.score) else math.inf):
            raise ValueError(f"`min_margin` is {self.min_margin:g}, but must lie between 0 and 1")
        return self


class BuildPairsSettings(PairOptions):
    """What ``maskdpo build-pairs`` can be told."""

    prompts: PromptsFile
    annotations: AnnotationsFiles
    out: Annotated[
        Path,
        Option(
            "Pair records (JSONL, or Parquet if the name ends in .parquet); pairs of held-out topics go to "
            "NAME.test.jsonl beside this file."
        ),
    ]
    gold: Annotated[
        Path | None,
        Option("Annotations with labels of people, such as `maskdpo gold` makes: these go before the judge's."),
    ] = None
    summary: SummaryFile = None

    def options(self) -> PairOptions:
        return PairOptions(**{name: getattr(self, name) for name in PairOptions.model_fields})
