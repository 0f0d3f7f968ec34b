"""What fits into the judge's context: a long reference is cut to the passages that bear on the sentences."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from maskdpo.annotate.protocol import Protocol
from maskdpo.backends.base import Context
from maskdpo.text.passages import Cut, Passages

TEMPLATE_TOKENS = 64
"""What a chat template may add of its own, such as a default system prompt or the date."""
MESSAGE_TOKENS = 16
"""What it adds around each message."""


class TooLong(Exception):
    """Not even without a reference does the question fit."""


class Room:
    """The judge's context, less what its replies take.

    Args:
        reply_tokens: the longest reply of a turn, given its index and the number of sentences asked about.
    """

    def __init__(self, context: Context, protocol: Protocol, *, reply_tokens: Callable[[int, int], int]) -> None:
        self._context, self._protocol, self._reply_tokens = context, protocol, reply_tokens
        self._last: tuple[Any, Cut | None] = (None, None)

    def fit(
        self, language: str, texts: Mapping[str, Any], passages: Passages, together: Sequence[str], own: Sequence[str]
    ) -> str | None:
        """The reference cut to what fits, or None where it fits whole.

        Args:
            texts: what the templates see.
            together: all sentences whose questions should see the same cut, so that a server reads it once: those of
                the answer. Where there is no place for the best passage of each, a question sees a cut of its own.
            own: the sentences that this question is about.

        Raises:
            TooLong: the rest of the question alone does not fit.
        """
        if self._context.limit is None:
            return None
        room = self._context.limit - self._replies(len(own)) - TEMPLATE_TOKENS
        key = (language, {**texts, "sentence": bool(texts["sentence"])}, tuple(together), len(own))
        if self._last[0] != key:
            self._last = (key, self._cut(language, texts, passages, together, room))
        shared = self._last[1]
        if shared is None or shared.complete:
            return shared.text if shared else None
        rest = self._tokens(self._questions(language, {**texts, "reference": ""}))
        alone = passages.cut(own, room - rest, self._context.count)
        return (alone or shared).text

    def _cut(
        self, language: str, texts: Mapping[str, Any], passages: Passages, sentences: Sequence[str], room: int
    ) -> Cut | None:
        """The same for all sentences: there must be room for the longest of them."""
        if texts["sentence"]:
            texts = {**texts, "sentence": max(sentences, key=_bytes)}
        # a token holds at least one byte, so short questions need no counting
        if sum(_bytes(text) + MESSAGE_TOKENS for text in self._questions(language, texts)) <= room:
            return None
        if texts["sentence"]:
            texts = {**texts, "sentence": max(sentences, key=self._context.count)}
        rest = self._tokens(self._questions(language, {**texts, "reference": ""}))
        if self._context.count(passages.text) + rest <= room:
            return None
        cut = passages.cut(sentences, room - rest, self._context.count)
        if cut is None:
            raise TooLong(f"the question takes {rest} tokens without a reference, the judge has room for {room}")
        return cut

    def _replies(self, sentences: int) -> int:
        """All replies: those of earlier turns stand in the conversation, and templates may show them once more."""
        *earlier, last = (self._reply_tokens(turn, sentences) for turn in range(len(self._protocol.turns)))
        return last + sum(earlier) * (2 if "replies" in self._protocol.uses else 1)

    def _questions(self, language: str, texts: Mapping[str, Any]) -> list[str]:
        """All that is asked in the whole conversation, without the replies."""
        blank = dict(texts) | {"replies": {turn.template: "" for turn in self._protocol.turns}}
        later = [self._protocol.question(language, turn, blank) for turn in range(1, len(self._protocol.turns))]
        return [message.content for message in [*self._protocol.opening(language, blank), *later]]

    def _tokens(self, texts: Sequence[str]) -> int:
        return sum(self._context.count(text) + MESSAGE_TOKENS for text in texts)


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))
