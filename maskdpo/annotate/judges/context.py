"""What fits into the context of the judge's model: of a long reference, the passages that bear on the sentences."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from maskdpo.annotate.protocol import Protocol
from maskdpo.backends.base import MESSAGE_TOKENS, TEMPLATE_TOKENS, Context
from maskdpo.text.passages import CutReference, Passages


class QuestionTooLong(Exception):
    """The question does not fit into the context, even without a reference."""


class ContextBudget:
    """The context of the judge's model, less what its replies take.

    Args:
        reply_tokens: the length of the longest reply, given the index of a turn and the number of sentences that the
            question is about.
    """

    def __init__(self, context: Context, protocol: Protocol, *, reply_tokens: Callable[[int, int], int]) -> None:
        self._context, self._protocol, self._reply_tokens = context, protocol, reply_tokens
        self._last: tuple[Any, CutReference | None] = (None, None)

    def cut_reference(
        self, language: str, texts: Mapping[str, Any], passages: Passages, related: Sequence[str], asked: Sequence[str]
    ) -> str | None:
        """The reference cut to what fits, or None where the whole reference fits.

        Args:
            texts: the variables of the templates.
            related: all sentences whose questions should see the same cut, so that a server can reuse its prefix cache:
                those of the answer. Where the best passages of all of them do not fit, each question sees its own cut.
            asked: the sentences that this question is about.

        Raises:
            QuestionTooLong: the question does not fit even without a reference.
        """
        if self._context.limit is None:
            return None
        budget = self._context.limit - self._replies(len(asked)) - TEMPLATE_TOKENS
        key = (language, {**texts, "sentence": bool(texts["sentence"])}, tuple(related), len(asked))
        if self._last[0] != key:
            self._last = (key, self._cut(language, texts, passages, related, budget))
        shared = self._last[1]
        if shared is None or shared.complete:
            return shared.text if shared else None
        rest = self._tokens(self._questions(language, {**texts, "reference": ""}))
        own = passages.cut(asked, budget - rest, self._context.count)
        return (own or shared).text

    def _cut(
        self, language: str, texts: Mapping[str, Any], passages: Passages, sentences: Sequence[str], budget: int
    ) -> CutReference | None:
        """One cut for all sentences: the longest of them must fit beside it."""
        if texts["sentence"]:
            texts = {**texts, "sentence": max(sentences, key=_bytes)}
        # a token holds at least one byte, so short questions need no counting
        if sum(_bytes(text) + MESSAGE_TOKENS for text in self._questions(language, texts)) <= budget:
            return None
        if texts["sentence"]:
            texts = {**texts, "sentence": max(sentences, key=self._context.count)}
        rest = self._tokens(self._questions(language, {**texts, "reference": ""}))
        if self._context.count(passages.text) + rest <= budget:
            return None
        cut = passages.cut(sentences, budget - rest, self._context.count)
        if cut is None:
            raise QuestionTooLong(
                f"the question takes {rest} tokens without a reference, the judge has room for {budget}"
            )
        return cut

    def _replies(self, sentences: int) -> int:
        """Tokens of all replies: those of earlier turns are in the conversation, and templates may repeat them."""
        *earlier, last = (self._reply_tokens(turn, sentences) for turn in range(len(self._protocol.turns)))
        if self._protocol.passages is not None:  # each turn is a question of its own
            return max(*earlier, last)
        return last + sum(earlier) * (2 if "replies" in self._protocol.uses else 1)

    def _questions(self, language: str, texts: Mapping[str, Any]) -> list[str]:
        """All messages of the conversation but the replies."""
        blank = dict(texts) | {"replies": {turn.template: "" for turn in self._protocol.turns}}
        if self._protocol.passages is not None:
            asked = [self._protocol.opening(language, blank, turn) for turn in range(len(self._protocol.turns))]
            return max(([message.content for message in each] for each in asked), key=lambda each: len("".join(each)))
        later = [self._protocol.question(language, turn, blank) for turn in range(1, len(self._protocol.turns))]
        return [message.content for message in [*self._protocol.opening(language, blank), *later]]

    def _tokens(self, texts: Sequence[str]) -> int:
        return sum(self._context.count(text) + MESSAGE_TOKENS for text in texts)


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))
