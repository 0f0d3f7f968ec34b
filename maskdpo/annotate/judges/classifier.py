"""The classifier judge: a model that scores a sentence against a passage, asked about each chunk of the reference."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from maskdpo.annotate.judge import Task, Usage, Verdict
from maskdpo.annotate.judges.evidence import decided, of_chunks, of_tokens
from maskdpo.annotate.judges.filler import why_filler
from maskdpo.backends.settings import BackendSettings
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
from maskdpo.classifier.spec import load_spec
from maskdpo.identity import fingerprint
from maskdpo.models import pick_device
from maskdpo.schemas import JudgeInfo, Kind, Label, Prompt, Sentence, Span, Status
from maskdpo.text.passages import Passages

if TYPE_CHECKING:
    from maskdpo.classifier.model import Classifier

VERSION = "0.1.0"
"""The version of maskdpo that last changed the verdicts of this judge. Labels of different versions are not mixed, so
this changes only where verdicts change."""
REFERENCES_KEPT = 256
"""References that are kept split and indexed, the ones used last."""
WINDOW = 8
"""Batches that are read ahead and sorted by length, so that their rows need little padding."""
PASSAGE_TOKENS = 8
"""What a template may write around each passage of a chunk: "passage 12: " and a line break."""


class ClassifierOptions(BaseModel):
    """How the ``classifier`` judge asks."""

    model_config = ConfigDict(extra="forbid")

    spec: str | None = None
    """A YAML file that says how the model is asked, or the id of a preset, for a model that is a copy of it."""
    chunks: Annotated[int | None, Field(ge=1)] = None
    """Chunks of the reference per sentence: those that bear most on it (BM25). None: as the spec says."""
    context: Annotated[int | None, Field(ge=0)] = None
    """Sentences of the answer that are shown before the judged one, because of pronouns. None: as the spec says."""
    filler: bool = True
    """Whether rules call questions and short remarks ``no_fact`` (a model with a class for them is asked instead)."""


@dataclass
class _Pending:
    """A task whose items are still to be scored."""

    task: Task
    chunks: list[str] = field(default_factory=list)
    asked: list[Verdict | list[tuple[int, int]]] = field(default_factory=list)
    """Per sentence its verdict, or the chunks that it is compared with, each with the index of its item."""
    answer: list[int] = field(default_factory=list)
    """With ``token-classification``: the items of the whole answer, one per chunk."""


class ClassifierJudge:
    """Scores every sentence beside every chunk of the reference; the chunk that supports it most counts.

    Args:
        model: a folder or a Hub id.
        settings: device, type and batch size.

    Raises:
        UserError: there is no spec for the model, or no such device.
    """

    needs_reference = True

    def __init__(self, model: str, settings: BackendSettings, options: ClassifierOptions) -> None:
        name, self._spec = load_spec(model, options.spec)
        self._model, self._settings, self._options = model, settings, options
        self._context = self._spec.context if options.context is None else options.context
        self._chunks = self._spec.chunks if options.chunks is None else options.chunks
        self._device = None if settings.device is None else pick_device(settings.device)
        self._loaded: Classifier | None = None
        self._references: OrderedDict[tuple[object, ...], Passages] = OrderedDict()
        self.usage = Usage()
        files = fingerprint(model)
        told = {"chunks": self._chunks, "context": self._context, "filler": options.filler}
        self.info = JudgeInfo(
            name="classifier",
            model=model,
            revision=files if files != model else None,
            protocol=name,
            protocol_hash=hashlib.sha256(json.dumps([self._spec.hash, told]).encode()).hexdigest()[:12],
            version=VERSION,
        )

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        """See ``Judge``. Tasks are taken as many at a time as fill some batches."""
        window: list[_Pending] = []
        items: dict[Item, tuple[int, Encoded]] = {}
        for task in tasks:
            window.append(self._ask(task, items))
            if len(items) >= WINDOW * self._settings.batch_size:
                yield from self._answers(window, items)
                window, items = [], {}
        yield from self._answers(window, items)

    def _answers(
        self, window: Sequence[_Pending], items: dict[Item, tuple[int, Encoded]]
    ) -> Iterator[tuple[Task, list[Verdict]]]:
        from maskdpo.classifier.model import scores

        encoded = [each for _, each in items.values()]
        self.usage.calls += len(encoded)
        self.usage.prompt_tokens += sum(len(each.ids) for each in encoded)
        self.usage.references_cut += sum(each.cut for each in encoded)
        found = dict(scores(self._classifier, encoded, self._settings.batch_size)) if encoded else {}
        for pending in window:
            if pending.answer:
                yield pending.task, self._by_tokens(pending, encoded, found)
            else:
                yield pending.task, [self._by_chunks(pending, asked, found) for asked in pending.asked]

    def _by_chunks(
        self, pending: _Pending, asked: Verdict | list[tuple[int, int]], found: dict[int, NDArray[Any]]
    ) -> Verdict:
        if isinstance(asked, Verdict):
            return asked
        scores, best = of_chunks(self._spec, np.stack([found[item] for _, item in asked]))
        return decided(self._spec, scores, pending.chunks[asked[best][0]])

    def _by_tokens(
        self, pending: _Pending, encoded: Sequence[Encoded], found: dict[int, NDArray[Any]]
    ) -> list[Verdict]:
        """The tokens of the answer are the same beside every chunk, for the two texts are encoded one by one."""
        shares, offsets = [], list[tuple[int, int]]()
        for item in pending.answer:
            places = encoded[item].answer_offsets or []
            mine = [t for t, place in enumerate(places) if place is not None]
            shares.append(found[item][mine])
            offsets = [place for place in places if place is not None]
        verdicts = []
        for asked, span in zip(pending.asked, pending.task.spans, strict=True):
            result = of_tokens(self._spec, np.stack(shares), offsets, (span.start, span.end))
            if isinstance(asked, Verdict):
                verdicts.append(asked)
            elif result is None:
                verdicts.append(Verdict(None, Status.REFUSED, reason="the model's tokenizer leaves nothing of it"))
            else:
                verdicts.append(decided(self._spec, result[0], pending.chunks[result[1]]))
        return verdicts

    def _ask(self, task: Task, items: dict[Item, tuple[int, Encoded]]) -> _Pending:
        """Add what the model must read for a task to ``items``; what was there already is read once."""
        if self._spec.head == "token-classification":
            return self._ask_about_answer(task, items)
        shown = [self._shown(task, i) for i in range(len(task.spans))]
        verdicts = [self._filler(task, i) for i in range(len(task.spans))]
        try:
            passages = self._passages(task.prompt, max(shown, key=lambda item: len(item.sentence), default=Item("")))
        except InputTooLong as error:
            return _Pending(task, asked=[verdict or _too_long(error) for verdict in verdicts])
        pending = _Pending(task, passages.all(), [verdict or [] for verdict in verdicts])
        wanted = [self._wanted(passages, task.sentence(i), pending.chunks) for i in range(len(task.spans))]
        # chunk by chunk: a causal model reads what neighbouring items begin with once
        for c, chunk in enumerate(pending.chunks):
            for i, item in enumerate(shown):
                asked = pending.asked[i]
                if isinstance(asked, Verdict) or c not in wanted[i]:
                    continue
                try:
                    asked.append((c, self._index(beside_chunk(self._spec, item, chunk), items)))
                except InputTooLong as error:
                    pending.asked[i] = _too_long(error)
        return pending

    def _ask_about_answer(self, task: Task, items: dict[Item, tuple[int, Encoded]]) -> _Pending:
        verdicts = [self._filler(task, i) for i in range(len(task.spans))]
        whole = Item("", question=task.prompt.question, answer=task.response.response)
        if all(verdicts):
            return _Pending(task, asked=[verdict or [] for verdict in verdicts])
        try:
            groups = self._groups(task.prompt, whole)
            chunks = ["\n\n".join(group) for group in groups]
            pending = _Pending(task, chunks, [verdict or [] for verdict in verdicts])
            for group, chunk in zip(groups, chunks, strict=True):
                item = Item(chunk, question=whole.question, answer=whole.answer, passages=tuple(group))
                pending.answer.append(self._index(item, items))
        except InputTooLong as error:
            return _Pending(task, asked=[verdict or _too_long(error) for verdict in verdicts])
        return pending

    def _groups(self, prompt: Prompt, whole: Item) -> list[list[str]]:
        """The passages of a reference in groups that fit beside the answer; a passage that does not fit is split."""
        spec, tokenizer = self._spec, self._classifier.tokenizer
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

    def _index(self, item: Item, items: dict[Item, tuple[int, Encoded]]) -> int:
        if item in items:
            self.usage.repeats += 1
        else:
            items[item] = (len(items), encode(self._spec, self._classifier.tokenizer, item))
        return items[item][0]

    def _filler(self, task: Task, i: int) -> Verdict | None:
        if not self._options.filler or self._spec.knows_filler:
            return None
        reason = why_filler(task.sentence(i), task.spans[i].kind)
        return Verdict(Label.NO_FACT, reason=reason) if reason else None

    def _shown(self, task: Task, i: int) -> Item:
        """The sentence with what is shown before it, as an item without a reference."""
        start = task.spans[i].start
        parts: list[Span | Sentence] = [*task.spans, *task.given]
        others = [part.start for part in parts if part.kind not in (Kind.HEADING, Kind.CODE)]
        earlier = sorted(other for other in others if other < start)[-self._context :] if self._context else []
        before = task.response.response[earlier[0] : start].strip() if earlier else ""
        return sentence_item(self._spec, task.sentence(i), before, task.prompt.question)

    def _passages(self, prompt: Prompt, longest: Item) -> Passages:
        """The reference in chunks (``reference_chunks``), kept for its other answers."""
        spec, tokenizer = self._spec, self._classifier.tokenizer
        key = (room(spec, tokenizer, longest) if spec.chunk is None else None, *prompt.passages)
        if key not in self._references:
            self._references[key] = reference_chunks(spec, tokenizer, prompt.passages, longest)
            if len(self._references) > REFERENCES_KEPT:
                self._references.popitem(last=False)
        self._references.move_to_end(key)
        return self._references[key]

    def _wanted(self, passages: Passages, sentence: str, chunks: Sequence[str]) -> set[int]:
        if self._chunks is None or len(chunks) <= self._chunks:
            return set(range(len(chunks)))
        best = set(passages.best(sentence, self._chunks))
        return {c for c, chunk in enumerate(chunks) if chunk in best}

    @property
    def _classifier(self) -> "Classifier":
        if self._loaded is None:
            from maskdpo.classifier.model import load_classifier

            device = pick_device(self._device)
            self._loaded = load_classifier(self._model, self._spec, dtype=self._settings.dtype, device=device)
        return self._loaded


def _too_long(error: InputTooLong) -> Verdict:
    return Verdict(None, Status.TRUNCATED, reason=str(error))


def classifier_judge(model: str, settings: BackendSettings, options: ClassifierOptions) -> ClassifierJudge:
    """The factory of the ``classifier`` judge, for the registry."""
    return ClassifierJudge(model, settings, options)
