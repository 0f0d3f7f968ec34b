"""Judged sentences beside gold sentences."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from maskdpo.schemas import Annotation, Sentence


class Match(NamedTuple):
    """A gold sentence and what the judge says of it."""

    annotation: Annotation
    sentence: Sentence | None
    """The judged sentence that shares most characters with the gold sentence; None where none shares any."""
    gold: Sentence
    topic: str


def matches(
    annotations: Iterable[Annotation], gold: Mapping[str, Annotation], topics: Mapping[str, str] | None = None
) -> Iterator[Match]:
    """The labelled gold sentences of all annotated answers, by the id of the answer, in the order of the annotations.

    Answers whose gold labels are of another text are left out.

    Args:
        gold: by id.
        topics: by the id of a prompt; without one, the prompt is its own topic.
    """
    for annotation in annotations:
        answer = gold.get(annotation.id)
        if answer is None or answer.response != annotation.response:
            continue
        topic = (topics or {}).get(annotation.prompt_id, annotation.prompt_id)
        for sentence in answer.sentences:
            if sentence.label is not None:
                yield Match(annotation, overlapping(annotation.sentences, sentence), sentence, topic)


def overlapping(sentences: Iterable[Sentence], wanted: Sentence) -> Sentence | None:
    """The sentence that shares most characters with ``wanted``, if it shares any."""
    best, most = None, 0
    for sentence in sentences:
        shared = min(sentence.end, wanted.end) - max(sentence.start, wanted.start)
        if shared > most:
            best, most = sentence, shared
    return best
