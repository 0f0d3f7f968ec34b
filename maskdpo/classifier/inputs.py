"""What a classifier reads: the texts of a spec's templates, to the letter, and their tokens."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from maskdpo.chat import ChatFormat, TemplateRefusal
from maskdpo.classifier.spec import ClassifierSpec
from maskdpo.errors import UserError
from maskdpo.schemas import WITHOUT_CLAIM, Message, Span
from maskdpo.text.passages import Passages, split_sentences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_VARIABLE = re.compile(r"\{([a-z]+)\}")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


class InputTooLong(Exception):
    """The input does not fit into the model, even without a reference."""


REFERENCES_KEPT = 256
"""References that are kept split and indexed, the ones used last."""


@dataclass(frozen=True, slots=True)
class Item:
    """One sentence (or, for ``token-classification``, one answer) beside one chunk of the reference."""

    reference: str
    sentence: str = ""
    context: str | None = None
    """The text of the answer before the sentence."""
    question: str | None = None
    answer: str = ""
    passages: tuple[str, ...] = ()
    """The chunk as separate passages, for templates with ``{passages}``. Empty: the reference is the only one."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An item as the model reads it."""

    ids: list[int]
    type_ids: list[int] | None = None
    """Which text of a pair each token is of, where the tokenizer says it."""
    answer_offsets: list[tuple[int, int] | None] | None = None
    """With ``token-classification``: the characters of the answer that a token stands for; None for other tokens."""
    cut: bool = False
    """Whether the end of the chunk did not fit."""


def render(spec: ClassifierSpec, item: Item) -> tuple[str, str | None]:
    """The text, and the second text of a pair. What is None in the item is an empty text in its place."""
    passages = item.passages or (item.reference,)
    values = {
        "reference": item.reference,
        "sentence": item.sentence,
        "context": item.context or "",
        "question": item.question or "",
        "answer": item.answer,
        "count": str(len(passages)),
        "passages": "\n".join(
            _fill(spec.input.passage, {"number": str(i), "reference": passage}) for i, passage in enumerate(passages, 1)
        ),
    }
    pair = spec.input.pair
    return _fill(spec.input.text, values), None if pair is None else _fill(pair, values)


def encode(spec: ClassifierSpec, tokenizer: "PreTrainedTokenizerBase", item: Item) -> Encoded:
    """The tokens of an item, at most ``spec.max_length``. Where there are more, the end of the chunk is left out.

    Special tokens of the tokenizer in judged text are broken up, so that judged text cannot end the reference.

    Raises:
        InputTooLong: the item does not fit without any reference.
    """
    item = _neutral(item, tokenizer)
    encoded = _encode(spec, tokenizer, item)
    if (over := len(encoded.ids) - spec.max_length) <= 0:
        return encoded
    last = item.passages[-1] if item.passages else item.reference
    offsets = tokenizer(last, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    while over > 0:
        keep = len(offsets) - over
        if keep <= 0:
            return _with_fewer_passages(spec, tokenizer, item)
        last, offsets = last[: offsets[keep - 1][1]], offsets[:keep]
        encoded = _encode(spec, tokenizer, _with_last(item, last))
        over = len(encoded.ids) - spec.max_length
    return Encoded(encoded.ids, encoded.type_ids, encoded.answer_offsets, cut=True)


def preceding(answer: str, start: int, spans: Iterable[Span], count: int) -> str:
    """What is shown of an answer before the sentence at ``start``.

    Args:
        spans: of the answer. Headings and code are no sentences; they are shown where they stand between sentences.
        count: sentences to show.
    """
    before = sorted(span.start for span in spans if span.start < start and span.kind not in WITHOUT_CLAIM)
    return answer[before[-count:][0] : start].strip() if before and count else ""


def sentence_item(spec: ClassifierSpec, sentence: str, before: str, question: str) -> Item:
    """A sentence as an item without a reference yet.

    Args:
        before: what is shown of the answer before it. A template without a place for the context gets it as a part of
            the sentence.
    """
    asked = question if spec.input.uses("question") else None
    if spec.input.uses("context"):
        return Item("", sentence, before or None, asked)
    return Item("", f"{before} {sentence}" if before else sentence, None, asked)


class References:
    """References in chunks, kept for their other sentences and answers. Short passages stand in one chunk."""

    def __init__(self, spec: ClassifierSpec, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._spec, self._tokenizer = spec, tokenizer
        self._chunks = lru_cache(maxsize=REFERENCES_KEPT)(self._split)

    def chunks(self, passages: Sequence[str], longest: Item) -> Passages:
        """The chunks of a reference; where the spec says no size, as long as fits.

        Args:
            longest: the item that leaves least room.

        Raises:
            InputTooLong: there is no room for a reference.
        """
        size = self._spec.chunk.size if self._spec.chunk else room(self._spec, self._tokenizer, longest)
        return self._chunks(tuple(passages), size)

    def _split(self, passages: tuple[str, ...], size: int) -> Passages:
        return Passages(["\n\n".join(passages)], piece_size=size, measure=measure(self._spec, self._tokenizer))


def beside_chunk(spec: ClassifierSpec, item: Item, chunk: str) -> Item:
    """The item with a chunk as its reference."""
    between = spec.input.joined_by
    text = chunk if between is None else between.join(split_sentences(chunk))
    return Item(text, item.sentence, item.context, item.question)


def measure(spec: ClassifierSpec, tokenizer: "PreTrainedTokenizerBase") -> Callable[[str], int]:
    """The size of a text in the unit of the spec's chunks; in tokens where the spec has no chunks."""
    if spec.chunk is not None and spec.chunk.unit == "words":
        return lambda text: max(len(text.split()), len(_CJK.findall(text)) // 2)
    return lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def room(spec: ClassifierSpec, tokenizer: "PreTrainedTokenizerBase", item: Item) -> int:
    """The tokens of reference that fit beside the rest of an item.

    Raises:
        InputTooLong: none fit.
    """
    bare = len(_encode(spec, tokenizer, _neutral(_with_last(item, ""), tokenizer)).ids)
    if bare >= spec.max_length:
        raise InputTooLong(f"it takes {bare} tokens without a reference, the model has room for {spec.max_length}")
    return spec.max_length - bare


def _with_last(item: Item, last: str) -> Item:
    passages = (*item.passages[:-1], last) if item.passages else ()
    return Item(last, item.sentence, item.context, item.question, item.answer, passages)


def _with_fewer_passages(spec: ClassifierSpec, tokenizer: "PreTrainedTokenizerBase", item: Item) -> Encoded:
    if len(item.passages) < 2:
        bare = len(_encode(spec, tokenizer, _with_last(item, "")).ids)
        raise InputTooLong(f"it takes {bare} tokens without a reference, the model has room for {spec.max_length}")
    fewer = Item(item.reference, item.sentence, item.context, item.question, item.answer, item.passages[:-1])
    encoded = encode(spec, tokenizer, fewer)
    return Encoded(encoded.ids, encoded.type_ids, encoded.answer_offsets, cut=True)


def _encode(spec: ClassifierSpec, tokenizer: "PreTrainedTokenizerBase", item: Item) -> Encoded:
    text, pair = render(spec, item)
    if spec.input.chat:
        system = [Message(role="system", content=spec.input.system)] if spec.input.system is not None else []
        try:
            return Encoded(ChatFormat(tokenizer).encode_prompt([*system, Message(role="user", content=text)]).ids)
        except TemplateRefusal as error:
            raise UserError(
                f"{tokenizer.name_or_path}: its chat template refuses the input of the spec: {error}"
            ) from None
    wants_offsets = spec.head == "token-classification"
    encoding = tokenizer(text, pair, verbose=False, return_offsets_mapping=wants_offsets)
    offsets = None
    if wants_offsets:
        of_answer = [sequence == 1 for sequence in encoding.sequence_ids()]
        offsets = [tuple(o) if mine else None for o, mine in zip(encoding["offset_mapping"], of_answer, strict=True)]
    return Encoded(list(encoding["input_ids"]), _type_ids(encoding), offsets)


def _type_ids(encoding: Mapping[str, Any]) -> list[int] | None:
    return list(encoding["token_type_ids"]) if "token_type_ids" in encoding else None


def _fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its variables; braces in the values are text."""
    return _VARIABLE.sub(lambda match: values[match.group(1)], template)


def _neutral(item: Item, tokenizer: "PreTrainedTokenizerBase") -> Item:
    plain = _breaker(tokenizer)
    return Item(
        plain(item.reference),
        plain(item.sentence),
        None if item.context is None else plain(item.context),
        None if item.question is None else plain(item.question),
        plain(item.answer),
        tuple(plain(passage) for passage in item.passages),
    )


@lru_cache(maxsize=4)
def _breaker(tokenizer: "PreTrainedTokenizerBase") -> Callable[[str], str]:
    """Replaces the first character of a special token by one that looks like it; the length of the text stays."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    special: Sequence[str] = sorted({*added, *map(str, tokenizer.all_special_tokens)}, key=len, reverse=True)
    wanted = [re.escape(text) for text in special if text[:1] in _LOOK_ALIKE]
    if not wanted:
        return lambda text: text
    pattern = re.compile("|".join(wanted))
    return lambda text: pattern.sub(lambda match: _LOOK_ALIKE[match.group()[0]] + match.group()[1:], text)


_LOOK_ALIKE = {"<": "‹", "[": "［"}
