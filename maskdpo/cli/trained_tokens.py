"""Which text of a pair's answers trains, token by token, for the page.

Trainer and page do not know each other: they meet here, in the one layer above both.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from maskdpo.evaluate.page import Spans, TrainedTokens
from maskdpo.models import load_tokenizer
from maskdpo.schemas import SIDES, Pair, Side
from maskdpo.train.encode import Drop, EncodedPair, Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

START = 48
"""Characters by which the beginning of an answer that was cut is found."""


def trained_tokens(model: str, method: str) -> TrainedTokens:
    """For a pair: the characters of each answer whose tokens have weight, or why the pair is not trained on."""
    tokenizer = load_tokenizer(model)
    encoder = Encoder(tokenizer, method=method)

    def of(pair: Pair) -> dict[Side, Spans] | str:
        encoded = encoder.encode(pair)
        if isinstance(encoded, Drop):
            return encoded.value
        return {side: list(_spans(tokenizer, encoded, side, pair.response(side))) for side in SIDES}

    return of


def _spans(
    tokenizer: "PreTrainedTokenizerBase", pair: EncodedPair, side: Side, response: str
) -> Iterator[tuple[int, int]]:
    answer = pair.side(side)
    ids = [*pair.prompt_ids.tolist(), *answer.ids.tolist()]

    def decoded(tokens: int) -> str:
        return str(tokenizer.decode(ids[:tokens], skip_special_tokens=False, clean_up_tokenization_spaces=False))

    start = _find(decoded(len(ids)), response)
    at = len(pair.prompt_ids)
    for trains, run in groupby(answer.weights.tolist(), key=bool):
        begin, at = at, at + len(list(run))
        # Lengths of prefixes, for a run decoded by itself may lose the space before its first word.
        span = [min(max(0, len(decoded(tokens)) - start), len(response)) for tokens in (begin, at)]
        if trains and span[0] < span[1]:
            yield span[0], span[1]


def _find(text: str, response: str) -> int:
    """Where the answer begins in prompt and answer as they were decoded.

    The encoder has made sure that it is there once, whole or cut at its end; a template may have trimmed it.
    """
    trimmed = response.strip()
    found = text.rfind(trimmed)
    start = found if found >= 0 else text.rfind(trimmed[:START])
    return start - response.index(trimmed)
