"""What the ``llm`` judge asks about an answer: which questions, in which words, about which part of the reference."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from maskdpo.annotate.judge import Task
from maskdpo.annotate.judges.pending import Part
from maskdpo.annotate.protocol import Protocol
from maskdpo.text.passages import BYTES_PER_WORD, PIECE_BYTES, Passages

SENTENCES_PER_CALL = 32
"""The most sentences that one call judges (``asks: answer``); longer answers take several calls."""
REFERENCES_KEPT = 512
"""References that are kept split and indexed, the ones used last."""


class Question(NamedTuple):
    """One question of a task, or the first one of a conversation."""

    parts: tuple[int, ...]
    """The indices of the parts of the task that the question is about."""
    texts: dict[str, Any]
    """The variables of the templates."""
    passages: Passages
    """The reference, of which the question sees what fits."""
    related: list[str]
    """The sentences whose questions should see the same part of the reference."""
    turn: int = 0


class LLMQuestions:
    """The questions of a protocol. References are kept, because several answers have the same one."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._references = lru_cache(maxsize=REFERENCES_KEPT)(self._split)

    def about(self, task: Task) -> tuple[list[Part], Iterator[Question]]:
        """The parts of a task, and the questions about them."""
        reference = self._references(tuple(task.prompt.passages))
        shared = {
            "reference": reference.text,
            "question": self._protocol.neutral(task.prompt.question),
            "answer": self._protocol.neutral(task.response.response),
            "sentence": "",
            "sentences": [],
            "replies": {},
        }
        sentences = [self._protocol.neutral(task.sentence(i)) for i in range(len(task.spans))]
        if self._protocol.passages is not None:
            parts = self._parts(sentences, reference, self._protocol.passages.most)
            return parts, self._about_passages(parts, sentences, shared)
        parts = [Part(i) for i in range(len(sentences))]
        if self._protocol.settings.asks == "sentence":
            single = (shared | {"sentence": sentence} for sentence in sentences)
            return parts, (Question((i,), texts, reference, sentences) for i, texts in enumerate(single))
        return parts, self._about_answer(sentences, reference, shared)

    def _parts(self, sentences: list[str], reference: Passages, most: int) -> list[Part]:
        """Every turn but the last is asked once for each sentence, the last one for each of its best passages.

        Questions about one passage stand together, so that the model can read the passage once.
        """
        last = len(self._protocol.turns) - 1
        alone = [Part(i, turn) for turn in range(last) for i in range(len(sentences))]
        wanted = [
            Part(i, last, text) for i, sentence in enumerate(sentences) for text in reference.best(sentence, most)
        ]
        order = {text: rank for rank, text in enumerate(dict.fromkeys(part.passage for part in wanted))}
        return [*alone, *sorted(wanted, key=lambda part: order[part.passage])]

    def _about_passages(self, parts: list[Part], sentences: list[str], shared: dict[str, Any]) -> Iterator[Question]:
        passages = {text: Passages([text]) for text in {part.passage or "" for part in parts}}
        for i, (sentence, turn, passage) in enumerate(parts):
            texts = shared | {"sentence": sentences[sentence], "reference": passage or ""}
            yield Question((i,), texts, passages[passage or ""], [sentences[sentence]], turn)

    def _about_answer(self, sentences: list[str], reference: Passages, shared: dict[str, Any]) -> Iterator[Question]:
        for start in range(0, len(sentences), SENTENCES_PER_CALL):
            indices = tuple(range(start, min(start + SENTENCES_PER_CALL, len(sentences))))
            # on one line each: a line break in a sentence could pretend to be the next number
            lines = [" ".join(sentences[i].split()) for i in indices]
            numbered = [{"id": str(k), "text": line} for k, line in enumerate(lines, 1)]
            yield Question(indices, shared | {"sentences": numbered}, reference, lines)

    def _split(self, passages: tuple[str, ...]) -> Passages:
        size = self._protocol.passages.words * BYTES_PER_WORD if self._protocol.passages else PIECE_BYTES
        return Passages([self._protocol.neutral(text) for text in passages], piece_size=size)

    def digest(self, language: str, asked: Question) -> bytes:
        """Digest of what the protocol's templates read: where they do not show the answer, equal sentences of different
        answers are the same question.
        """
        texts = (f"{name}={asked.texts[name]!r}" for name in sorted(self._protocol.uses - {"replies", "language"}))
        read = [language, str(asked.turn), *texts]
        return hashlib.blake2b("\0".join(read).encode(errors="replace"), digest_size=16).digest()
