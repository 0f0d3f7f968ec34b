"""Sentences as the model reads them: the texts of the spec, as in judging, and their tokens."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from maskdpo.classifier.inputs import Encoded, InputTooLong, Item, encode, measure
from maskdpo.classifier.spec import ClassifierSpec
from maskdpo.console import progress
from maskdpo.schemas import WRONG, Label
from maskdpo.text.language import detect_language
from maskdpo.text.passages import Passages
from maskdpo.text.splitters import markdown
from maskdpo.train_judge.examples import Example
from maskdpo.train_judge.step import Row
from maskdpo.train_judge.targets import Classes, target_of

WITHOUT_CHUNKS = 400
"""Words of a passage for a base whose spec has no chunks: what does not fit is cut."""


class Reader:
    """Makes the inputs of a classifier out of sentences and their references."""

    def __init__(self, spec: ClassifierSpec, tokenizer: PreTrainedTokenizerBase) -> None:
        self.spec, self.tokenizer = spec, tokenizer
        self._passages = lru_cache(maxsize=256)(self._split)

    def _split(self, reference: tuple[str, ...]) -> Passages:
        chunk = self.spec.chunk
        if chunk is None:
            return Passages(reference, piece_size=WITHOUT_CHUNKS, measure=lambda text: len(text.split()))
        return Passages(reference, piece_size=chunk.size, measure=measure(self.spec, self.tokenizer))

    def inputs(self, example: Example, most: int) -> list[Encoded]:
        """The sentence beside each of the passages that bear most on it (BM25), the best first.

        Raises:
            InputTooLong: it does not fit into the model.
        """
        passages = self._passages(tuple(example.prompt.passages)).best(example.sentence, most)
        context = last_sentences(example.before, self.spec.context) if self.spec.context else None
        return [
            encode(
                self.spec,
                self.tokenizer,
                Item(passage, example.sentence, context=context, question=example.prompt.question),
            )
            for passage in passages
        ]


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
                encoded = reader.inputs(example, 1)[0]
            except InputTooLong:
                left_out["too long for `max_length`"] += 1
                continue
            rows.append(Row(example.id, encoded, target, example.label, example.weight))
    return rows


def speaks_of(label: Label, classes: Iterable[Label]) -> bool:
    """Whether a judge of these classes can agree with a gold label."""
    return label in classes or (label in WRONG and bool(WRONG & set(classes)))
