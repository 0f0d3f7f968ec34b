"""What a classifier is asked about an answer: its sentences beside chunks of the reference, or the whole answer."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from maskdpo.annotate.judge import Task, Verdict
from maskdpo.annotate.judges.filler import why_filler
from maskdpo.classifier.inputs import (
    Encoded,
    InputTooLong,
    Item,
    beside_chunk,
    encode,
    measure,
    reference_chunks,
    room,
    sentence_item,
)
from maskdpo.schemas import WITHOUT_CLAIM, Label, Prompt, Status
from maskdpo.text.passages import Passages

if TYPE_CHECKING:
    from maskdpo.classifier.model import Classifier

REFERENCES_KEPT = 256
"""References that are kept split and indexed, the ones used last."""
PASSAGE_TOKENS = 8
"""What a template may write around each passage of a chunk: "passage 12: " and a line break."""


@dataclass
class Asked:
    """A task, and where the scores of what is asked about it will be."""

    task: Task
    chunks: list[str] = field(default_factory=list)
    sentences: list[Verdict | list[tuple[int, int]]] = field(default_factory=list)
    """Per sentence its verdict, or the chunks that it is compared with, each with the index of its item."""
    answer: list[int] = field(default_factory=list)
    """With ``token-classification``: the items of the whole answer, one per chunk."""


@dataclass
class Questions:
    """Collects what the model must read about tasks. Equal items are read once.

    Args:
        chunks: chunks per sentence, those that bear most on it; None: all.
        context: sentences that are shown before the judged one.
        filler: whether rules decide what states no fact.
    """

    classifier: "Classifier"
    chunks: int | None
    context: int
    filler: bool
    items: dict[Item, tuple[int, Encoded]] = field(default_factory=dict)
    repeats: int = 0
    _references: OrderedDict[tuple[object, ...], Passages] = field(default_factory=OrderedDict)

    def take(self) -> list[Encoded]:
        """The items so far, by their index; what is asked next begins at 0 again."""
        taken = [encoded for _, encoded in self.items.values()]
        self.items = {}
        return taken

    def ask(self, task: Task) -> Asked:
        """Add the items of a task."""
        verdicts = [self._filler(task, i) for i in range(len(task.spans))]
        if all(verdicts):
            return Asked(task, sentences=[verdict or [] for verdict in verdicts])
        try:
            if self.classifier.spec.head == "token-classification":
                return self._about_answer(task, verdicts)
            return self._about_sentences(task, verdicts)
        except InputTooLong as error:
            return Asked(task, sentences=[verdict or _too_long(error) for verdict in verdicts])

    def _about_sentences(self, task: Task, verdicts: Sequence[Verdict | None]) -> Asked:
        shown = [self._shown(task, i) for i in range(len(task.spans))]
        passages = self._passages(task.prompt, max(shown, key=lambda item: len(item.sentence)))
        asked = Asked(task, passages.all(), [verdict or [] for verdict in verdicts])
        wanted = [self._wanted(passages, task.sentence(i), asked.chunks) for i in range(len(shown))]
        # chunk by chunk: a causal model reads what neighbouring items begin with once
        for c, chunk in enumerate(asked.chunks):
            for i, item in enumerate(shown):
                places = asked.sentences[i]
                if isinstance(places, Verdict) or c not in wanted[i]:
                    continue
                try:
                    places.append((c, self._index(beside_chunk(self.classifier.spec, item, chunk))))
                except InputTooLong as error:
                    asked.sentences[i] = _too_long(error)
        return asked

    def _about_answer(self, task: Task, verdicts: Sequence[Verdict | None]) -> Asked:
        whole = Item("", question=task.prompt.question, answer=task.response.response)
        groups = self._groups(task.prompt, whole)
        asked = Asked(task, ["\n\n".join(group) for group in groups], [verdict or [] for verdict in verdicts])
        asked.answer = [
            self._index(replace(whole, reference=chunk, passages=tuple(group)))
            for chunk, group in zip(asked.chunks, groups, strict=True)
        ]
        return asked

    def _groups(self, prompt: Prompt, whole: Item) -> list[list[str]]:
        """The passages of a reference in groups that fit beside the answer; a passage that does not fit is split."""
        spec, tokenizer = self.classifier.spec, self.classifier.tokenizer
        size, left = measure(spec, tokenizer), 0
        space = room(spec, tokenizer, whole)
        if spec.chunk is not None:
            space = min(space, spec.chunk.size)
        groups: list[list[str]] = []
        for piece in Passages(prompt.passages, piece_size=space, measure=size).all():
            need = size(piece) + PASSAGE_TOKENS
            if not groups or need > left:
                groups.append([])
                left = space
            groups[-1].append(piece)
            left -= need
        return groups

    def _index(self, item: Item) -> int:
        if item in self.items:
            self.repeats += 1
        else:
            self.items[item] = (len(self.items), encode(self.classifier.spec, self.classifier.tokenizer, item))
        return self.items[item][0]

    def _filler(self, task: Task, i: int) -> Verdict | None:
        if not self.filler or self.classifier.spec.knows_filler:
            return None
        reason = why_filler(task.sentence(i), task.spans[i].kind)
        return Verdict(Label.NO_FACT, reason=reason) if reason else None

    def _shown(self, task: Task, i: int) -> Item:
        """The sentence with what is shown before it, as an item without a reference."""
        start = task.spans[i].start
        others = [(s.start, s.kind) for s in task.spans] + [(s.start, s.kind) for s in task.given]
        before_it = sorted(at for at, kind in others if at < start and kind not in WITHOUT_CLAIM)
        earlier = before_it[-self.context :] if self.context else []
        before = task.response.response[earlier[0] : start].strip() if earlier else ""
        return sentence_item(self.classifier.spec, task.sentence(i), before, task.prompt.question)

    def _passages(self, prompt: Prompt, longest: Item) -> Passages:
        """The reference in chunks (``reference_chunks``), kept for its other answers."""
        spec, tokenizer = self.classifier.spec, self.classifier.tokenizer
        key = (room(spec, tokenizer, longest) if spec.chunk is None else None, *prompt.passages)
        if key not in self._references:
            self._references[key] = reference_chunks(spec, tokenizer, prompt.passages, longest)
            if len(self._references) > REFERENCES_KEPT:
                self._references.popitem(last=False)
        self._references.move_to_end(key)
        return self._references[key]

    def _wanted(self, passages: Passages, sentence: str, chunks: Sequence[str]) -> set[int]:
        if self.chunks is None or len(chunks) <= self.chunks:
            return set(range(len(chunks)))
        best = set(passages.best(sentence, self.chunks))
        return {c for c, chunk in enumerate(chunks) if chunk in best}


def _too_long(error: InputTooLong) -> Verdict:
    return Verdict(None, Status.TRUNCATED, reason=str(error))
