"""Many texts to tokens at once: prompts, and what follows them.

A tokenizer reads a text between two special tokens by itself. So what follows a prompt is read behind the part of the
prompt that begins with its last special token, which for a chat template is a few characters, and not behind the whole
prompt once more. Where that cannot be, ``ChatFormat.continuation`` reads the whole.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskdpo.chat import EncodedPrompt
from maskdpo.train.data.weights import A_BYTE, BYTE, exact_offsets, has_marks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text."""

    ids: Ids
    """[T]"""
    offsets: Ids
    """[T, 2] the character range of each, as the tokenizer reports them."""


def tokens_of(ids: Sequence[int], offsets: Iterable[tuple[int, int]]) -> Tokens:
    flat = np.fromiter(chain.from_iterable(offsets), np.int64, 2 * len(ids))
    return Tokens(np.array(ids, dtype=np.int64), flat.reshape(-1, 2))


class TextReader:
    """What one tokenizer makes of texts."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._separators = _separators(tokenizer)
        vocabulary = tokenizer.get_vocab()
        spelled = [vocabulary[name] for name in vocabulary if BYTE.fullmatch(name)] if A_BYTE in vocabulary else []
        self._byte_ids = np.array(spelled, dtype=np.int64)
        """Tokens that are one byte of a character outside the vocabulary."""
        normalizer = tokenizer.backend_tokenizer.normalizer
        self._takes_apart = normalizer is not None and "f\u00ed" in normalizer.normalize_str("\ufb01\u0301")
        """Whether ligatures become letters that accents are joined to, as in NFKC."""
        added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
        self.end_ids: set[int] = added | set(tokenizer.all_special_ids)
        """Tokens that may end a turn: special and added tokens, except those of white space."""

    def encoded(self, texts: Sequence[str]) -> list[Any]:
        """The texts as ``tokenizers.Encoding``, without the special tokens that the tokenizer would add."""
        if not texts:
            return []
        batch = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        found: list[Any] = batch.encodings
        return found

    def continuations(self, given: Sequence[tuple[EncodedPrompt, str]]) -> list[Tokens | None]:
        """What follows each prompt, as the tokens of the whole text; None where they are not those of the prompt and
        others behind them."""
        last = [self._last_part(prompt) for prompt, _ in given]
        wholes = self.encoded([before + rest for (before, _), (_, rest) in zip(last, given, strict=True)])
        return [_behind(*part, whole) for part, whole in zip(last, wholes, strict=True)]

    def _last_part(self, prompt: EncodedPrompt) -> tuple[str, list[int]]:
        """The text and the ids of a prompt from its last separator on; all of it where it has none."""
        places = range(len(prompt.ids) - 1, prompt.prefix - 1, -1)
        at = next((i for i in places if prompt.ids[i] in self._separators), None)
        begin = -1 if at is None else prompt.text.rfind(self._separators[prompt.ids[at]])
        return (prompt.text[begin:], prompt.ids[at:]) if begin >= 0 else (prompt.text, prompt.ids[prompt.prefix :])

    def exact_offsets(self, tokens: Tokens, text: str) -> Ids:
        """[T, 2] ``weights.exact_offsets``: those that the tokenizer reports, but for bytes and accents.

        Raises:
            ValueError: the bytes do not spell the text.
        """
        spelled = bool(len(self._byte_ids)) and bool(np.isin(tokens.ids, self._byte_ids).any())
        if not spelled and not has_marks(text):
            return tokens.offsets
        names = self._tokenizer.convert_ids_to_tokens(tokens.ids.tolist()) if spelled else None
        offsets = [(begin, end) for begin, end in tokens.offsets.tolist()]
        return np.asarray(exact_offsets(names, offsets, text, takes_apart=self._takes_apart), dtype=np.int64).reshape(
            -1, 2
        )

    def with_eos(self, ids: Ids) -> tuple[Ids, int | None]:
        """A plain string gets an end-of-text token, as in TRL, where its tokenizer has one; and its place."""
        eos_id = self._tokenizer.eos_token_id
        if eos_id is None:
            return ids, None
        if not len(ids) or ids[-1] != eos_id:
            ids = np.append(ids, eos_id)
        return ids, len(ids) - 1


def _separators(tokenizer: "PreTrainedTokenizerBase") -> dict[int, str]:
    """By id the texts of the added tokens at which a text is cut before anything else is done with it: all that are
    looked for in the text as it is, take no space from their left, and stand in no other added token."""
    added = tokenizer.added_tokens_decoder
    texts = [token.content for token in added.values()]
    return {
        index: token.content
        for index, token in added.items()
        if not (token.normalized or token.lstrip or token.single_word)
        and sum(token.content in text for text in texts) == 1
    }


def _behind(before: str, own: list[int], whole: Any) -> Tokens | None:
    """The tokens of the text that follows ``before``, whose own tokens must be the first ones of the whole."""
    found = tokens_of(whole.ids, whole.offsets)
    n = int(np.count_nonzero(found.offsets[:, 1] <= len(before)))
    if n != len(own) or found.ids[:n].tolist() != own or (found.offsets[n:, 0] < len(before)).any():
        return None
    return Tokens(found.ids[n:], found.offsets[n:] - len(before))
