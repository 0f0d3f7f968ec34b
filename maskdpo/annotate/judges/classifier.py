"""The classifier judge: a model that scores a sentence against a passage, asked about each chunk of the reference."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from maskdpo.annotate.judge import Task, Usage, Verdict
from maskdpo.annotate.judges.evidence import decided, of_chunks, of_tokens
from maskdpo.annotate.judges.questions import Asked, Questions
from maskdpo.backends.settings import BackendSettings
from maskdpo.classifier.inputs import Encoded
from maskdpo.classifier.spec import load_spec
from maskdpo.devices import pick_device
from maskdpo.identity import revision
from maskdpo.schemas import JudgeInfo, Status

if TYPE_CHECKING:
    from maskdpo.classifier.model import Classifier

VERSION = "0.1.0"
"""The version of maskdpo that last changed the verdicts of this judge. Labels of different versions are not mixed, so
this changes only where verdicts change."""
WINDOW = 4
"""Batches that are read ahead and sorted by length, so that their rows need little padding."""
CPU_ROWS = 16
"""The most rows of a batch on a CPU, which gains nothing by more: progress shows, and a run that stops loses little."""


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
        self._model, self._settings = model, settings
        context = self._spec.context if options.context is None else options.context
        chunks = self._spec.chunks if options.chunks is None else options.chunks
        self._asking: dict[str, Any] = {"chunks": chunks, "context": context, "filler": options.filler}
        self._device = None if settings.device is None else pick_device(settings.device)
        self._loaded: Classifier | None = None
        self.usage = Usage()
        self.info = JudgeInfo(
            name="classifier",
            model=model,
            revision=revision(model),
            protocol=name,
            protocol_hash=hashlib.sha256(json.dumps([self._spec.hash, self._asking]).encode()).hexdigest()[:12],
            version=VERSION,
        )

    def load(self) -> None:
        """Load the model, which ``judge`` does at its first task otherwise.

        Raises:
            UserError: it cannot be loaded.
        """
        _ = self._classifier

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        """See ``Judge``. Tasks are taken as many at a time as fill some batches."""
        window: list[Asked] = []
        questions: Questions | None = None
        for task in tasks:
            questions = questions or self._questions()
            window.append(questions.ask(task))
            if max(len(questions.items), len(window)) >= WINDOW * self._rows:
                yield from self._answers(window, questions)
                window = []
        if questions is not None:
            yield from self._answers(window, questions)

    def _answers(self, window: Sequence[Asked], questions: Questions) -> Iterator[tuple[Task, list[Verdict]]]:
        from maskdpo.classifier.model import scores

        self.usage.repeats += questions.repeats
        items = questions.take()
        self.usage.calls += len(items)
        self.usage.prompt_tokens += sum(len(item.ids) for item in items)
        self.usage.references_cut += sum(item.cut for item in items)
        found = dict(scores(self._classifier, items, self._rows))
        for asked in window:
            if asked.answer:
                yield asked.task, self._by_tokens(asked, items, found)
            else:
                yield asked.task, [self._by_chunks(asked, places, found) for places in asked.sentences]

    def _by_chunks(
        self, asked: Asked, places: Verdict | list[tuple[int, int]], found: dict[int, NDArray[Any]]
    ) -> Verdict:
        if isinstance(places, Verdict):
            return places
        scores, best = of_chunks(self._spec, np.stack([found[item] for _, item in places]))
        return decided(scores, asked.chunks[places[best][0]])

    def _by_tokens(self, asked: Asked, items: Sequence[Encoded], found: dict[int, NDArray[Any]]) -> list[Verdict]:
        """The tokens of the answer are the same beside every chunk, for the two texts are encoded one by one."""
        shares, offsets = [], list[tuple[int, int]]()
        for item in asked.answer:
            places = items[item].answer_offsets or []
            shares.append(found[item][[t for t, place in enumerate(places) if place is not None]])
            offsets = [place for place in places if place is not None]
        beside_all, verdicts = np.stack(shares), []
        for given, span in zip(asked.sentences, asked.task.spans, strict=True):
            result = of_tokens(self._spec, beside_all, offsets, (span.start, span.end))
            if isinstance(given, Verdict):
                verdicts.append(given)
            elif result is None:
                verdicts.append(Verdict(None, Status.REFUSED, reason="the model's tokenizer leaves nothing of it"))
            else:
                verdicts.append(decided(result[0], asked.chunks[result[1]]))
        return verdicts

    def _questions(self) -> Questions:
        return Questions(self._classifier, **self._asking)

    @property
    def _rows(self) -> int:
        """Rows of a batch."""
        on_cpu = self._classifier.model.device.type == "cpu"
        return min(self._settings.batch_size, CPU_ROWS) if on_cpu else self._settings.batch_size

    @property
    def _classifier(self) -> "Classifier":
        if self._loaded is None:
            from maskdpo.classifier.model import load_classifier

            device = pick_device(self._device)
            self._loaded = load_classifier(self._model, self._spec, dtype=self._settings.dtype, device=device)
            # the model may have been fetched for this
            self.info = self.info.model_copy(update={"revision": revision(self._model)})
        return self._loaded


def classifier_judge(model: str, settings: BackendSettings, options: ClassifierOptions) -> ClassifierJudge:
    """The factory of the ``classifier`` judge, for the registry."""
    return ClassifierJudge(model, settings, options)
