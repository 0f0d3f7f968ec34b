"""Pairs to token ids with weights: the prompt as it is sent in sampling, the answer as the model wrote it
(``maskdpo.chat``). A pair that cannot be encoded exactly is dropped, with a reason."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from maskdpo.chat import ChatFormat, EncodedPrompt, TemplateRefusal
from maskdpo.errors import UserError
from maskdpo.schemas import SIDES, Label, Pair, Side
from maskdpo.train.data.encoded_pair import Drop, EncodedPair, EncodedPairs, EncodedSide, Weights
from maskdpo.train.data.settings import EncodeSettings
from maskdpo.train.data.tokens import Ids, TextReader, Tokens, tokens_of
from maskdpo.train.data.weights import (
    METHODS,
    Rendered,
    desensitise,
    sentence_weight,
    token_weights,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AT_ONCE = 256
"""Pairs that are encoded together."""
UNREAD = EncodedPrompt("", [])
NO_WEIGHT: dict[Side, Drop] = {"chosen": Drop.NO_WEIGHT_CHOSEN, "rejected": Drop.NO_WEIGHT_REJECTED}


class Encoder:
    """Turns pairs into token ids and weights, for one tokenizer.

    Args:
        tokenizer: a fast tokenizer; for conversational pairs it needs a chat template.
        settings: which tokens train. ``eos`` is the end-of-turn token after the response: ``keep`` gives it weight 1,
            as the paper's code does, ``last_sentence`` the weight of the last label, ``drop`` 0. The end of an answer
            that was cut off never trains. Answers beyond ``max_length`` are cut at the end, and spans with them.
        today: the date for chat templates that write one, for pairs that do not record theirs.
        ld_alpha: factor on the tokens beyond the length of the shorter answer (``weights.desensitise``).
        need_scores: drop pairs that lack a score.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        settings: EncodeSettings,
        *,
        today: date | None = None,
        ld_alpha: float = 1.0,
        need_scores: bool = False,
    ) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                f"{tokenizer.name_or_path}: exact masks need a fast tokenizer, which reports the character offsets of "
                f"its tokens; {type(tokenizer).__name__} does not. Convert it with transformers, or take another model"
            )
        self._tokenizer = tokenizer
        self._settings = settings
        self._method = METHODS[settings.method]
        self._today = today
        self._ld_alpha = ld_alpha
        self._need_scores = need_scores
        self._formats: dict[str, ChatFormat] = {}
        self._tails: dict[str, bool] = {}
        """By the text that a template writes behind an answer: whether it ends the turn. A template has one or two
        texts."""
        self._texts = TextReader(tokenizer)
        self.without_end = 0
        """Answers so far behind which the chat template writes no end-of-turn token, so that ``eos`` has no effect."""
        self.took_today = False
        """Whether a conversation so far records no date of its own."""

    def identity(self) -> str:
        """All that decides the result beside the tokenizer and the date. A method is told by its tables, as a file of
        one's own may change."""
        settings = self._settings.model_dump(
            mode="json", include=set(EncodeSettings.model_fields) - {"model", "method"}
        )
        tables = [sorted((str(label), weight) for label, weight in row.items()) for row in self._method[:2]]
        return json.dumps(
            [settings, tables, self._method.by_confidence, self._ld_alpha, self._need_scores], sort_keys=True
        )

    def packed(self) -> dict[str, Any]:
        """As JSON what ``unpacked`` makes the same encoder of."""
        settings = self._settings.model_dump(mode="json", include=set(EncodeSettings.model_fields))
        of_the_run = {"ld_alpha": self._ld_alpha, "need_scores": self._need_scores}
        return {"settings": settings, "today": self._today and self._today.isoformat(), "of_the_run": of_the_run}

    @classmethod
    def unpacked(cls, packed: dict[str, Any], load: "Callable[[str], PreTrainedTokenizerBase]") -> Self:
        """The encoder in another process, which loads the tokenizer by the name of the model."""
        settings = EncodeSettings.model_validate(packed["settings"], by_name=True)
        today = packed["today"] and date.fromisoformat(packed["today"])
        return cls(load(settings.model), settings, today=today, **packed["of_the_run"])

    def encode(self, pair: Pair) -> EncodedPair | Drop:
        """Token ids and weights of both sides, or why there are none."""
        return self.encode_all([pair])[0]

    def encode_all(self, pairs: Sequence[Pair]) -> list[EncodedPair | Drop]:
        """``encode`` of each, with one call of the tokenizer for all prompts and one for all answers."""
        drafts = [self._draft(pair) for pair in pairs]
        begun = [draft for draft in drafts if isinstance(draft, _Draft)]
        for draft, ids in zip(begun, self._texts.encoded([draft.text for draft in begun]), strict=True):
            self._begin(draft, ids.ids)
        rests = [(draft, side) for draft in begun for side in draft.rests]
        found = self._texts.continuations([(draft.prompt, draft.rests[side].text) for draft, side in rests])
        for (draft, side), tokens in zip(rests, found, strict=True):
            draft.tokens[side] = tokens
        return [draft if isinstance(draft, Drop) else self._finished(draft) for draft in drafts]

    def _draft(self, pair: Pair) -> "_Draft | Drop":
        if self._need_scores and None in (pair.chosen_score, pair.rejected_score):
            return Drop.NO_SCORES
        chat = self._format(pair)
        try:
            return _Draft(pair, chat, pair.prompt if isinstance(pair.prompt, str) else chat.prompt_text(pair.prompt))
        except TemplateRefusal:
            return Drop.REFUSED

    def _begin(self, draft: "_Draft", ids: list[int]) -> None:
        """Note the tokens of the prompt, and what follows it on each side, up to the first reason to drop the pair."""
        draft.prompt = draft.chat.as_encoded(draft.pair.prompt, draft.text, ids)
        if not draft.prompt.ids:
            draft.drop = Drop.NO_PROMPT
        elif len(draft.prompt.ids) >= self._settings.max_length:
            draft.drop = Drop.PROMPT_TOO_LONG
        for side in SIDES:
            if draft.drop is None:
                rest = self._rest(draft.pair, side, draft.chat)
                if isinstance(rest, Drop):
                    draft.drop = rest
                else:
                    draft.rests[side] = rest

    def _finished(self, draft: "_Draft") -> EncodedPair | Drop:
        pair, prompt = draft.pair, draft.prompt
        answers = []
        for side in draft.rests:
            answer = self._answer(draft, side)
            if isinstance(answer, Drop):
                return answer
            answers.append(answer)
        if draft.drop is not None:
            return draft.drop
        room = self._settings.max_length - len(prompt.ids)
        shorter = min(len(answer.ids) - answer.first for answer in answers)
        if any(answer.first >= room for answer in answers):
            return Drop.NO_ROOM
        sides = []
        for name, answer in zip(SIDES, answers, strict=True):
            weights = answer.weights[:room]
            weights[answer.first :] = desensitise(weights[answer.first :], shorter, self._ld_alpha)
            if not any(i != answer.end for i in np.flatnonzero(weights)):
                return NO_WEIGHT[name]  # the end-of-turn token alone states no fact
            sides.append(EncodedSide(answer.ids[:room], weights))
        ids = np.asarray(prompt.ids, dtype=np.int64)
        return EncodedPair(pair.id, ids, sides[0], sides[1], pair.weight, _score_gap(pair))

    def _format(self, pair: Pair) -> ChatFormat:
        """How the tokenizer writes the conversation: as in sampling, as far as the pair records it."""
        options = self._settings.template_options if pair.template_options is None else pair.template_options
        self.took_today |= pair.prompt_date is None and not isinstance(pair.prompt, str)
        today = pair.prompt_date or self._today
        key = json.dumps([options, str(today)], sort_keys=True)
        return self._formats.setdefault(key, ChatFormat(self._tokenizer, options, today))

    def _rest(self, pair: Pair, side: Side, chat: ChatFormat) -> "Rendered | Drop":
        """The text behind the prompt: reasoning, answer, and what ends the turn."""
        response = pair.response(side)
        reasoning = pair.reasoning(side) if self._settings.reasoning == "keep" else None
        if not response.strip():
            return Drop.EMPTY
        if isinstance(pair.prompt, str):
            return Rendered(response, 0, len(response))
        try:
            text, start = chat.turn.write(response, reasoning)
            if not self._ends_turn(chat.turn.tail):
                text = text[
                    : start + len(response)
                ]  # else one token could hold the end of the answer and the beginning of the tail
        except TemplateRefusal:
            return Drop.NO_PLACE if reasoning else Drop.NOT_FOUND
        return Rendered(text, start, start + len(response))

    def _answer(self, draft: "_Draft", side: Side) -> "_Answer | Drop":
        """The tokens behind the prompt, and their weights."""
        pair, rendered = draft.pair, draft.rests[side]
        try:
            tokens = draft.tokens[side] or tokens_of(*draft.chat.continuation(draft.prompt, rendered.text))
            offsets_T2 = self._texts.exact_offsets(tokens, rendered.text)
        except ValueError:
            return Drop.NOT_JOINED
        row, sentences, ids = self._method.row(side), pair.sentences(side), tokens.ids
        weights = token_weights(rendered, offsets_T2, sentences, row, by_confidence=self._method.by_confidence)
        begin_T, end_T = offsets_T2.T
        with_text = np.flatnonzero(end_T > rendered.start)
        first = int(with_text[0]) if len(with_text) else len(ids)
        if isinstance(pair.prompt, str):
            ids, end = self._texts.with_eos(ids)
            weights = np.append(weights, np.zeros(len(ids) - len(weights), np.float32))
        else:
            behind = np.flatnonzero((begin_T >= rendered.end) & (end_T > begin_T)).tolist()
            end = next(
                (i for i in behind if int(ids[i]) in self._texts.end_ids), None
            )  # None: the template writes none
        if end is None:
            self.without_end += 1
            stop = int(np.count_nonzero(begin_T < rendered.end))
        else:
            last = row[Label.NO_FACT]
            if sentences:
                last = sentence_weight(sentences[-1], row, by_confidence=self._method.by_confidence)
            eos = "drop" if pair.finish_reason(side) == "length" else self._settings.eos
            weights[end] = {"keep": 1.0, "drop": 0.0, "last_sentence": last}[eos]
            stop = end + 1
        return _Answer(ids[:stop], weights[:stop], first, end)

    def _ends_turn(self, tail: str) -> bool:
        """Whether what the template writes behind an answer holds a token that ends the turn."""
        if tail not in self._tails:
            ids = self._tokenizer(tail, add_special_tokens=False)["input_ids"]
            self._tails[tail] = not self._texts.end_ids.isdisjoint(ids)
        return self._tails[tail]


@dataclass
class _Draft:
    """A pair that is being encoded."""

    pair: Pair
    chat: ChatFormat
    text: str
    """Of the prompt."""
    prompt: EncodedPrompt = UNREAD
    rests: dict[Side, Rendered] = field(default_factory=dict)
    tokens: dict[Side, Tokens | None] = field(default_factory=dict)
    """Of the rests; None where they cannot be read off the tokens of the whole text."""
    drop: Drop | None = None


@dataclass(frozen=True)
class _Answer:
    """What follows the prompt."""

    ids: Ids
    weights: Weights
    first: int
    """Index of the first token of the response, behind reasoning and the model's header."""
    end: int | None
    """Index of the token that ends the turn."""


def _score_gap(pair: Pair) -> float:
    if pair.chosen_score is None or pair.rejected_score is None:
        return 0.0
    return pair.chosen_score - pair.rejected_score


def encoder_for(settings: EncodeSettings, tokenizer: "PreTrainedTokenizerBase", today: date | None = None) -> Encoder:
    """The encoder for these settings.

    Args:
        today: the day on which the run was begun.
    """
    return Encoder(
        tokenizer, settings, today=today, ld_alpha=settings.factor_beyond_shorter, need_scores=settings.needs_scores
    )


def encode_pairs(pairs: Iterable[Pair], encoder: Encoder) -> EncodedPairs:
    """Encode all pairs; dropped ones are counted by reason.

    Raises:
        UserError: no pair is left.
    """
    found: list[EncodedPair] = []
    result = EncodedPairs(found, Counter())
    rest = iter(pairs)
    while block := list(islice(rest, AT_ONCE)):
        for encoded in encoder.encode_all(block):
            if isinstance(encoded, Drop):
                result.dropped[encoded] += 1
            else:
                found.append(encoded)
    if not result.pairs:
        reasons = "; ".join(f"{count}: {reason.value}" for reason, count in result.dropped.most_common())
        raise UserError(f"no pair can be trained on ({reasons})")
    return result
