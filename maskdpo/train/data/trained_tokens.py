"""Which characters of a pair's answers train, token by token, for the page of ``maskdpo report --model``."""

from itertools import groupby
from typing import TYPE_CHECKING

from maskdpo.models import load_tokenizer
from maskdpo.schemas import SIDES, Pair, Side
from maskdpo.schemas.training import Spans, TrainedTokens
from maskdpo.settings_reading import load_settings
from maskdpo.train.data.encode import Encoder
from maskdpo.train.data.encoded_pair import Drop, EncodedPair
from maskdpo.train.data.settings import EncodeSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def trained_tokens(model: str, method: str) -> TrainedTokens:
    """For a pair: the characters of each answer whose tokens have weight, or why the pair is not trained on."""
    settings = load_settings(EncodeSettings, {"model": model, "method": method})
    tokenizer = load_tokenizer(model)
    encoder = Encoder(tokenizer, settings)

    def of(pair: Pair) -> dict[Side, Spans] | str:
        encoded = encoder.encode(pair)
        if isinstance(encoded, Drop):
            return encoded.value
        spans = {side: _spans(tokenizer, encoded, side, pair.response(side)) for side in SIDES}
        found = {side: of_side for side, of_side in spans.items() if of_side is not None}
        return found if len(found) == len(SIDES) else "cannot be told here, as its tokens, decoded, are not its text"

    return of


def _spans(tokenizer: "PreTrainedTokenizerBase", pair: EncodedPair, side: Side, response: str) -> Spans | None:
    """None where the answer is not found in its own tokens."""
    answer = pair.side(side)
    ids = [*pair.prompt_ids.tolist(), *answer.ids.tolist()]

    def decoded(tokens: int) -> str:
        return str(tokenizer.decode(ids[:tokens], skip_special_tokens=False, clean_up_tokenization_spaces=False))

    at = len(pair.prompt_ids)
    start = _start(decoded(at), decoded(len(ids)), response)
    if start is None:
        return None
    spans = []
    for trains, run in groupby(answer.weights.tolist(), key=bool):
        begin, at = at, at + len(list(run))
        # Lengths of prefixes, for a run decoded by itself may lose the space before its first word.
        first, last = (min(max(0, len(decoded(tokens)) - start), len(response)) for tokens in (begin, at))
        if trains and first < last:
            spans.append((first, last))
    return spans


def _start(prompt: str, text: str, response: str) -> int | None:
    """Where the answer begins in ``text``, the prompt and answer as they were decoded; None where it is not there, as
    with tokenizers that normalise. A template may have trimmed it, ``--max-length`` may have cut its end off."""
    trimmed = response.strip()
    found = text.rfind(trimmed)
    if found < 0:
        answer = text[len(prompt) :]
        if not answer.strip() or not trimmed.startswith(answer.strip()):
            return None
        found = len(text) - len(answer.lstrip())
    return found - response.index(trimmed)
