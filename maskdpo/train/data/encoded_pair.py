"""An encoded pair: token ids with weights, as the trainer reads it; or why a pair is not trained on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from maskdpo.schemas import Side
from maskdpo.train.data.tokens import Ids

Weights = NDArray[np.float32]


class Drop(StrEnum):
    """Why a pair cannot be trained on. Training never falls back to an inexact mask."""

    REFUSED = "the chat template refuses the conversation (its roles or their order)"
    NOT_FOUND = "the chat template does not keep the response text"
    NO_PLACE = "the chat template has no place for the reasoning (`reasoning` drop leaves the reasoning out)"
    NOT_JOINED = "the tokenizer has no boundary between prompt and answer, or does not say which characters a token is"
    NO_ROOM = "prompt and reasoning alone reach max_length"
    EMPTY = "an answer is empty"
    NO_PROMPT = "there is no prompt token before the answers"
    PROMPT_TOO_LONG = "the prompt alone reaches max_length"
    NO_WEIGHT_CHOSEN = "no token of the chosen answer takes part in the loss"
    NO_WEIGHT_REJECTED = "no token of the rejected answer takes part in the loss"
    NO_SCORES = "the loss needs the scores of both answers, which the pair does not have"


@dataclass(frozen=True)
class EncodedSide:
    """One answer after its prompt. ``weights[t]`` is the weight of predicting ``ids[t]``; both [T]."""

    ids: Ids
    weights: Weights


@dataclass(frozen=True)
class EncodedPair:
    """A pair ready for the model. ``prompt_ids`` [P] precedes both sides and has no weight; P >= 1."""

    id: str
    prompt_ids: Ids
    chosen: EncodedSide
    rejected: EncodedSide
    weight: float = 1.0
    score_gap: float = 0.0
    """Score of the chosen answer less that of the rejected one; 0 where the pair has no scores."""

    def side(self, side: Side) -> EncodedSide:
        return self.chosen if side == "chosen" else self.rejected

    @property
    def tokens(self) -> int:
        """Length of the row [prompt | chosen | rejected]."""
        return len(self.prompt_ids) + len(self.chosen.ids) + len(self.rejected.ids)

    @property
    def longest(self) -> int:
        """Tokens of the prompt and the longer answer."""
        return len(self.prompt_ids) + max(len(self.chosen.ids), len(self.rejected.ids))


@dataclass
class EncodedPairs:
    """The encoded pairs of a dataset, and how many were dropped, by reason."""

    pairs: Sequence[EncodedPair]
    dropped: Counter[Drop]
