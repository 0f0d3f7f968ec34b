"""Pairs to token ids with weights: render once, tokenise once, drop with a reason what cannot be done exactly."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray

from maskdpo.errors import UserError
from maskdpo.schemas import SIDES, Label, Pair, Side
from maskdpo.train.weights import (
    BY_CONFIDENCE,
    METHODS,
    Offsets,
    Rendered,
    desensitise,
    sentence_weight,
    token_weights,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = NDArray[np.int64]
Weights = NDArray[np.float32]
EosPolicy = Literal["keep", "last_sentence", "drop"]


class Drop(StrEnum):
    """Why a pair cannot be trained on. Training never falls back to an inexact mask."""

    REFUSED = "the chat template refuses the conversation (its roles or their order)"
    NOT_FOUND = "the chat template does not keep the response text"
    AMBIGUOUS = "the response text occurs several times in the rendered conversation"
    NO_PROMPT = "there is no prompt token before the answers"
    PROMPT_TOO_LONG = "the prompt alone reaches max_length"
    NO_WEIGHT_CHOSEN = "no token of the chosen answer takes part in the loss"
    NO_WEIGHT_REJECTED = "no token of the rejected answer takes part in the loss"
    NO_SCORES = "the loss needs the scores of both answers, which the pair does not have"


NO_WEIGHT: dict[Side, Drop] = {"chosen": Drop.NO_WEIGHT_CHOSEN, "rejected": Drop.NO_WEIGHT_REJECTED}


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


class Encoder:
    """Turns pairs into token ids and weights for one tokenizer and one method.

    Args:
        tokenizer: a fast tokenizer; for conversational pairs it needs a chat template.
        method: a key of ``weights.METHODS``.
        eos: the end-of-turn token after the response: ``keep`` (weight 1, as the paper's code does),
            ``last_sentence`` (the weight of its label) or ``drop``. An answer that was cut off never trains it.
        max_length: longest prompt + answer in tokens; longer answers are cut at the end, and spans with them.
        ld_alpha: factor on the tokens beyond the length of the shorter answer (``weights.desensitise``).
        need_scores: drop pairs that lack a score.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        method: str = "mask-dpo",
        eos: EosPolicy = "keep",
        max_length: int = 2048,
        ld_alpha: float = 1.0,
        need_scores: bool = False,
    ) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                f"{tokenizer.name_or_path}: exact masks need a fast tokenizer, which reports the character offsets of "
                f"its tokens; {type(tokenizer).__name__} does not. Convert it with transformers, or take another model"
            )
        self._tokenizer = tokenizer
        self._table = METHODS[method]
        self._by_confidence = method in BY_CONFIDENCE
        self._eos = eos
        self._max_length = max_length
        self._ld_alpha = ld_alpha
        self._need_scores = need_scores
        self._special_ids = _special_ids(tokenizer)

    def encode(self, pair: Pair) -> EncodedPair | Drop:
        """Token ids and weights of both sides, or why there are none."""
        if self._need_scores and None in (pair.chosen_score, pair.rejected_score):
            return Drop.NO_SCORES
        encoded: list[tuple[EncodedSide, int, int | None]] = []
        for side in SIDES:
            result = self._encode_side(pair, side)
            if isinstance(result, Drop):
                return result
            encoded.append(result)
        (chosen, chosen_first, _), (rejected, rejected_first, _) = encoded
        shared = _shared_prefix(chosen.ids, rejected.ids, min(chosen_first, rejected_first))
        if shared == 0:
            return Drop.NO_PROMPT
        if shared >= self._max_length:
            return Drop.PROMPT_TOO_LONG
        sides = self._desensitised([_cut(side, shared, self._max_length) for side in (chosen, rejected)])
        for name, answer, (_, _, end) in zip(SIDES, sides, encoded, strict=True):
            kept = np.flatnonzero(answer.weights) + shared
            if not (kept != end).any():  # the end-of-turn token alone says nothing about facts
                return NO_WEIGHT[name]
        return EncodedPair(pair.id, chosen.ids[:shared], sides[0], sides[1], pair.weight, _score_gap(pair))

    def _desensitised(self, sides: list[EncodedSide]) -> list[EncodedSide]:
        shorter = min(len(side.ids) for side in sides)
        return [EncodedSide(side.ids, desensitise(side.weights, shorter, self._ld_alpha)) for side in sides]

    def _encode_side(self, pair: Pair, side: Side) -> tuple[EncodedSide, int, int | None] | Drop:
        """Ids and weights of prompt + answer; where the answer begins, and the token that ends the turn."""
        rendered = self._render(pair, side)
        if isinstance(rendered, Drop):
            return rendered
        # A chat template writes its special tokens itself; a plain string gets the ones that the tokenizer adds.
        encoding = self._tokenizer(
            rendered.text,
            add_special_tokens=isinstance(pair.prompt, str),
            return_offsets_mapping=True,
            verbose=False,
        )
        ids = np.asarray(encoding["input_ids"], dtype=np.int64)
        offsets: list[tuple[int, int]] = encoding["offset_mapping"]
        row = self._table[side]
        sentences = pair.sentences(side)
        weights = token_weights(rendered, offsets, sentences, row, by_confidence=self._by_confidence)
        ids, weights, end = self._with_end_of_turn(pair, ids, weights, offsets, rendered)
        if end is not None:
            eos = "drop" if pair.finish_reason(side) == "length" else self._eos
            last = row[Label.NO_FACT]
            if sentences:
                last = sentence_weight(sentences[-1], row, by_confidence=self._by_confidence)
            weights[end] = {"keep": 1.0, "drop": 0.0, "last_sentence": last}[eos]
        first = next((i for i, (_, token_end) in enumerate(offsets) if token_end > rendered.start), len(offsets))
        return EncodedSide(ids, weights), first, end

    def _with_end_of_turn(
        self, pair: Pair, ids: Ids, weights: Weights, offsets: Offsets, rendered: Rendered
    ) -> tuple[Ids, Weights, int | None]:
        """Find the token that ends the turn; a plain string gets one appended, as in TRL, where its tokenizer has one.

        In a chat it is the first special token at or after the end of the response. Nothing behind it trains.
        """
        if not isinstance(pair.prompt, str):
            behind = (i for i, (start, end) in enumerate(offsets) if start >= rendered.end and end > start)
            return ids, weights, next((i for i in behind if int(ids[i]) in self._special_ids), None)
        eos_id = self._tokenizer.eos_token_id
        if eos_id is None:
            return ids, weights, None
        if len(ids) == 0 or ids[-1] != eos_id:
            ids, weights = np.append(ids, eos_id), np.append(weights, np.float32(0))
        return ids, weights, len(ids) - 1

    def _render(self, pair: Pair, side: Side) -> Rendered | Drop:
        response = pair.response(side)
        if isinstance(pair.prompt, str):
            start = len(pair.prompt)
            return Rendered(pair.prompt + response, start, start + len(response), origin=start)
        if not self._tokenizer.chat_template:
            raise UserError(
                f"{self._tokenizer.name_or_path}: the tokenizer has no chat template, which chat messages need. "
                "Take an instruction-tuned model, or sample with --raw to get pairs of plain strings"
            )
        prompt = [message.model_dump() for message in pair.prompt]
        try:
            text = self._apply([*prompt, {"role": "assistant", "content": response}])
            before = _common_start(text, self._apply(prompt, add_generation_prompt=True), self._apply(prompt))
        except TemplateError:
            return Drop.REFUSED
        return _locate(text, response, before)

    def _apply(self, messages: list[dict[str, str]], **options: Any) -> str:
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, **options)
        assert isinstance(text, str)
        return text


def _special_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _common_start(text: str, *prefixes: str) -> int:
    """Length of the first of ``prefixes`` that ``text`` starts with, else 0."""
    return next((len(prefix) for prefix in prefixes if text.startswith(prefix)), 0)


def _locate(text: str, response: str, begin: int) -> Rendered | Drop:
    """Find the response in the text after ``begin``: as it is, else as a template that trims leaves it."""
    trimmed = response.strip()
    if not trimmed:
        return Drop.NOT_FOUND
    for wanted, cut in ((response, 0), (trimmed, response.index(trimmed))):
        # It must be the only one: a template may put in text of its own (a think block) that begins like the response.
        start = text.find(wanted, begin)
        if start >= 0 and text.find(wanted, start + 1) >= 0:
            return Drop.AMBIGUOUS
        if start >= 0:
            return Rendered(text, start, start + len(wanted), origin=start - cut)
    return Drop.NOT_FOUND


def _shared_prefix(a: Ids, b: Ids, limit: int) -> int:
    """Length of the common prefix of two id sequences, at most ``limit``."""
    limit = min(limit, len(a), len(b))
    different = np.nonzero(a[:limit] != b[:limit])[0]
    return int(different[0]) if len(different) else limit


def _score_gap(pair: Pair) -> float:
    if pair.chosen_score is None or pair.rejected_score is None:
        return 0.0
    return pair.chosen_score - pair.rejected_score


def _cut(side: EncodedSide, begin: int, end: int) -> EncodedSide:
    return EncodedSide(side.ids[begin:end], side.weights[begin:end])


@dataclass
class EncodedPairs:
    """What encoding a dataset gave: the pairs, and how many were dropped, by reason."""

    pairs: list[EncodedPair]
    dropped: Counter[Drop]


def encode_pairs(pairs: Iterable[Pair], encoder: Encoder) -> EncodedPairs:
    """Encode all pairs; dropped ones are counted by reason.

    Raises:
        UserError: no pair is left.
    """
    result = EncodedPairs([], Counter())
    for pair in pairs:
        encoded = encoder.encode(pair)
        if isinstance(encoded, Drop):
            result.dropped[encoded] += 1
        else:
            result.pairs.append(encoded)
    if not result.pairs:
        reasons = "; ".join(f"{count}: {reason.value}" for reason, count in result.dropped.most_common())
        raise UserError(f"no pair can be trained on ({reasons})")
    return result
