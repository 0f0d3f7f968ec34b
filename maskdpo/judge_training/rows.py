"""Sentences as the model reads them: the texts of the spec, as in judging, and their tokens."""

from collections import Counter
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from maskdpo.classifier.inputs import (
    Encoded,
    InputTooLong,
    References,
    beside_chunk,
    encode,
    preceding,
    sentence_item,
)
from maskdpo.classifier.spec import ClassifierSpec
from maskdpo.console import progress
from maskdpo.judge_training.examples import LabelledSentence
from maskdpo.judge_training.step import Row
from maskdpo.judge_training.targets import Classes, target_of


class Reader:
    """Makes the inputs of a classifier out of sentences and their references."""

    def __init__(self, spec: ClassifierSpec, tokenizer: PreTrainedTokenizerBase) -> None:
        self.spec, self.tokenizer = spec, tokenizer
        self._references = References(spec, tokenizer)

    def input(self, example: LabelledSentence) -> Encoded:
        """The sentence beside the chunk that bears most on it (BM25).

        Raises:
            InputTooLong: it does not fit into the model.
        """
        before = preceding(example.answer, example.span.start, example.spans, self.spec.context)
        item = sentence_item(self.spec, example.sentence, before, example.prompt.question)
        chunk = self._references.chunks(example.prompt.passages, item).best(example.sentence, 1)[0]
        return encode(self.spec, self.tokenizer, beside_chunk(self.spec, item, chunk))


def make_rows(
    examples: Sequence[LabelledSentence], reader: Reader, classes: Classes, *, soft: bool, left_out: Counter[str]
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
