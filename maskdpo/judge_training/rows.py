"""Sentences as the model reads them: the texts of the spec, as in judging, and their tokens."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial

from transformers import PreTrainedTokenizerBase

from maskdpo.classifier.inputs import (
    Encoded,
    InputTooLong,
    Item,
    beside_chunk,
    encode,
    reference_chunks,
    sentence_item,
)
from maskdpo.classifier.spec import ClassifierSpec
from maskdpo.console import progress
from maskdpo.judge_training.examples import Example
from maskdpo.judge_training.step import Row
from maskdpo.judge_training.targets import Classes, target_of
from maskdpo.text.language import detect_language
from maskdpo.text.splitters import markdown

REFERENCES_KEPT = 256


class Reader:
    """Makes the inputs of a classifier out of sentences and their references."""

    def __init__(self, spec: ClassifierSpec, tokenizer: PreTrainedTokenizerBase) -> None:
        self.spec, self.tokenizer = spec, tokenizer
        self._chunks = lru_cache(maxsize=REFERENCES_KEPT)(partial(reference_chunks, spec, tokenizer))

    def input(self, example: Example) -> Encoded:
        """The sentence beside the chunk that bears most on it (BM25).

        Raises:
            InputTooLong: it does not fit into the model.
        """
        before = context_of(example, self.spec.context) if self.spec.context else ""
        item = sentence_item(self.spec, example.sentence, before, example.prompt.question)
        longest = item if self.spec.chunk is None else Item("")
        chunk = self._chunks(tuple(example.prompt.passages), longest).best(example.sentence, 1)[0]
        return encode(self.spec, self.tokenizer, beside_chunk(self.spec, item, chunk))


def context_of(example: Example, count: int) -> str:
    """The sentences before the sentence: those of the answer's spans; where it has none, what its text tells."""
    before = example.answer[: example.span[0]]
    if example.earlier:
        return before[example.earlier[-count:][0] :].strip()
    return last_sentences(before, count)


def last_sentences(text: str, count: int) -> str:
    """The last sentences of a text."""
    ends = markdown.cut(text.replace("\n", " "), detect_language(text))
    starts = [0, *(end for end in ends if text[end:].strip())]
    return text[starts[max(0, len(starts) - count)] :].strip()


def make_rows(
    examples: Sequence[Example], reader: Reader, classes: Classes, *, soft: bool, left_out: Counter[str]
) -> list[Row]:
    """The rows of sentences, with the best passage of each. Those that cannot be used are counted by reason."""
    rows = []
    with progress("read", len(examples), "sentences") as bar:
        for example in examples:
            bar.advance(1)
            target = target_of(example.label, example.scores if soft else None, classes)
            if target is None:
                left_out[f"{example.label.value}: no class of this judge"] += 1
                continue
            try:
                encoded = reader.input(example)
            except InputTooLong:
                left_out["too long for `max_length`"] += 1
                continue
            rows.append(Row(example.id, encoded, target, example.label, example.weight))
    return rows
