"""What a classifier is asked about an answer: its sentences beside chunks of the reference, or the whole answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from maskdpo.annotate.judge import Task, Verdict
from maskdpo.annotate.judges.filler import why_filler
from maskdpo.classifier.inputs import (
    Encoded,
    InputTooLong,
    Item,
    References,
    beside_chunk,
    encode,
    measure,
    preceding,
    room,
    sentence_item,
)
from maskdpo.schemas import Label, Prompt, Span, Status
from maskdpo.text.passages import Passages

if TYPE_CHECKING:
    from maskdpo.classifier.model import Classifier

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
    """Sentences about which all that is asked was an item already."""

    def __post_init__(self) -> None:
        self._references = References(self.classifier.spec, self.classifier.tokenizer)

    def take(self) -> list[Encoded]:
        """The items so far, by their index; what is asked next begins at 0 again."""
        taken = [encoded for _, encoded in self.items.values()]
        self.items, self.repeats = {}, 0
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
        given, longest = self._fitting(shown, verdicts)
        if longest is None:
            return Asked(task, sentences=[verdict or [] for verdict in given])
        passages = self._references.chunks(task.prompt.passages, longest)
        asked = Asked(task, passages.all(), [verdict or [] for verdict in given])
        new = set[int]()
        wanted = [self._wanted(passages, task.sentence(i), asked.chunks) for i in range(len(shown))]
        # chunk by chunk: a causal model reads what neighbouring items begin with once
        for c, chunk in enumerate(asked.chunks):
            for i, item in enumerate(shown):
                places = asked.sentences[i]
                if isinstance(places, Verdict) or c not in wanted[i]:
                    continue
                known = len(self.items)
                try:
                    places.append((c, self._index(beside_chunk(self.classifier.spec, item, chunk))))
                except InputTooLong as error:
                    asked.sentences[i] = _too_long(error)
                if len(self.items) > known:
                    new.add(i)
        self.repeats += sum(isinstance(one, list) and i not in new for i, one in enumerate(asked.sentences))
        return asked

    def _fitting(
        self, shown: Sequence[Item], verdicts: Sequence[Verdict | None]
    ) -> tuple[list[Verdict | None], Item | None]:
        """The verdicts with those on sentences that do not fit by themselves, and the other sentence that leaves least
        room; None where there is none. With chunks of a fixed size this turns out beside each chunk."""
        given, rooms = list(verdicts), dict[int, int]()
        for i, item in enumerate(shown):
            if verdicts[i] is not None:
                continue
            try:
                rooms[i] = 0 if self.classifier.spec.chunk else self._room(item)
            except InputTooLong as error:
                given[i] = _too_long(error)
        return given, shown[min(rooms, key=rooms.__getitem__)] if rooms else None

    def _room(self, item: Item) -> int:
        return room(self.classifier.spec, self.classifier.tokenizer, item)

    def _about_answer(self, task: Task, verdicts: Sequence[Verdict | None]) -> Asked:
        whole = Item("", question=task.prompt.question, answer=task.response.response)
        groups = self._groups(task.prompt, whole)
        asked = Asked(task, ["\n\n".join(group) for group in groups], [verdict or [] for verdict in verdicts])
        known = len(self.items)
        asked.answer = [
            self._index(replace(whole, reference=chunk, passages=tuple(group)))
            for chunk, group in zip(asked.chunks, groups, strict=True)
        ]
        if len(self.items) == known:
            self.repeats += sum(verdict is None for verdict in verdicts)
        return asked

    def _groups(self, prompt: Prompt, whole: Item) -> list[list[str]]:
        """The passages of a reference in groups that fit beside the answer; a passage that does not fit is split."""
        spec, tokenizer = self.classifier.spec, self.classifier.tokenizer
        size, left = measure(spec, tokenizer), 0
        space = self._room(whole)
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
        if item not in self.items:
            self.items[item] = (len(self.items), encode(self.classifier.spec, self.classifier.tokenizer, item))
        return self.items[item][0]

    def _filler(self, task: Task, i: int) -> Verdict | None:
        if not self.filler or self.classifier.spec.knows_filler:
            return None
        reason = why_filler(task.sentence(i), task.spans[i].kind)
        return Verdict(Label.NO_FACT, reason=reason) if reason else None

    def _shown(self, task: Task, i: int) -> Item:
        """The sentence with what is shown before it, as an item without a reference."""
        spans = [*task.spans, *(Span(given.start, given.end, given.kind) for given in task.given)]
        before = preceding(task.response.response, task.spans[i].start, spans, self.context)
        return sentence_item(self.classifier.spec, task.sentence(i), before, task.prompt.question)

    def _wanted(self, passages: Passages, sentence: str, chunks: Sequence[str]) -> set[int]:
        if self.chunks is None or len(chunks) <= self.chunks:
            return set(range(len(chunks)))
        best = set(passages.best(sentence, self.chunks))
        return {c for c, chunk in enumerate(chunks) if chunk in best}


def _too_long(error: InputTooLong) -> Verdict:
    return Verdict(None, Status.TRUNCATED, reason=str(error))
