"""Which text of a pair's answers trains, token by token, for the page.

Trainer and page do not know each other: they meet here, in the one layer above both.
"""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from maskdpo.evaluate.page import Spans, TrainedTokens
from maskdpo.models import load_tokenizer
from maskdpo.schemas import SIDES, Pair, Side
from maskdpo.train.encode import Drop, EncodedPair, Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def trained_tokens(model: str, method: str) -> TrainedTokens:
    """For a pair: the characters of each answer whose tokens have weight, or why the pair is not trained on."""
    tokenizer = load_tokenizer(model)
    encoder = Encoder(tokenizer, method=method)

    def of(pair: Pair) -> dict[Side, Spans] | str:
        encoded = encoder.encode(pair)
        if isinstance(encoded, Drop):
            return encoded.value
        starts = {side: _start(tokenizer, encoded, side, pair.response(side)) for side in SIDES}
        if None in starts.values():
            return "cannot be told here, as its tokens, decoded, are not its text"
        return {side: list(_spans(tokenizer, encoded, side, pair.response(side), starts[side] or 0)) for side in SIDES}

    return of


def _spans(
    tokenizer: "PreTrainedTokenizerBase", pair: EncodedPair, side: Side, response: str, start: int
) -> Iterator[tuple[int, int]]:
    answer = pair.side(side)
    decoded = _decoder(tokenizer, pair, side)
    at = len(pair.prompt_ids)
    for trains, run in groupby(answer.weights.tolist(), key=bool):
        begin, at = at, at + len(list(run))
        # Lengths of prefixes, for a run decoded by itself may lose the space before its first word.
        span = [min(max(0, len(decoded(tokens)) - start), len(response)) for tokens in (begin, at)]
        if trains and span[0] < span[1]:
            yield span[0], span[1]


def _decoder(tokenizer: "PreTrainedTokenizerBase", pair: EncodedPair, side: Side) -> Callable[[int], str]:
    """The text of the first so many tokens of prompt and answer."""
    ids = [*pair.prompt_ids.tolist(), *pair.side(side).ids.tolist()]

    def decoded(tokens: int) -> str:
        return str(tokenizer.decode(ids[:tokens], skip_special_tokens=False, clean_up_tokenization_spaces=False))

    return decoded


def _start(tokenizer: "PreTrainedTokenizerBase", pair: EncodedPair, side: Side, response: str) -> int | None:
    """Where the answer begins in prompt and answer as they were decoded; None where it is not there, as with tokenizers
    that normalise text. A template may have trimmed it, ``--max-length`` may have cut its end off."""
    decoded, prompt = _decoder(tokenizer, pair, side), len(pair.prompt_ids)
    text, trimmed = decoded(prompt + len(pair.side(side).ids)), response.strip()
    found = text.rfind(trimmed)
    if found < 0:
        answer = text[len(decoded(prompt)) :]
        if not answer.strip() or not trimmed.startswith(answer.strip()):
            return None
        found = len(text) - len(answer.lstrip())
    return found - response.index(trimmed)
