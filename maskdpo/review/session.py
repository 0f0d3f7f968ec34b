"""One reviewer at one queue: what the page is told, and how the acts of the reviewer become decisions in the file."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from maskdpo.io.append import append_shared
from maskdpo.review.others import Others
from maskdpo.review.queue import Chosen, ReviewQueue
from maskdpo.schemas import Annotation, Decision, Label, Part, Prompt, Sentence
from maskdpo.schemas.decisions import Act
from maskdpo.verdicts.gold import overlapping
from maskdpo.verdicts.people import read_decisions, standing

Payload = dict[str, Any]
Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]


class Told(BaseModel):
    """An act as the page tells it. What else a decision holds is known here, and is not for the page to say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Drawn by the page, so that an act that is sent twice is there once."""
    act: Act
    item: Annotated[int, Field(ge=0)]
    start: Annotated[int, Field(ge=0)]
    end: int
    label: Label | None = None
    note: Annotated[str, Field(max_length=10_000)] | None = None
    undoes: str | None = None
    seconds: Seconds = 0.0
    ago: Seconds = 0.0
    """Seconds since the reviewer acted: it may be sent late."""
    known: list[str] = []
    """The decisions that the page knows to stand where this act is: others were made on another page meanwhile."""


@dataclass(frozen=True)
class Reply:
    """What became of acts: by id either saved or, with a reason, refused."""

    saved: list[str]
    refused: dict[str, str]


class _Item(NamedTuple):
    """A sentence of the queue."""

    number: int
    """Of its answer, among those of the queue."""
    sentence: Sentence
    chosen: Chosen


class Session:
    """The state of a review. It is that of the file: a session that is made again goes on where the last one stopped.

    Args:
        run: a name of the queue, its settings and the reviewer: pages of another one are refused.
        answers: the annotations that the queue has sentences of.
        prompts: at least those of these answers.
        out: the file of decisions; other reviewers may append to it, too.
        others: other labels, for the queue ``disagreement``.

    Raises:
        InputError: ``out`` is there and holds other lines than decisions.
    """

    def __init__(
        self,
        run: str,
        reviewer: str,
        queue: ReviewQueue,
        answers: Iterable[Annotation],
        prompts: Mapping[str, Prompt],
        out: Path,
        others: Others | None = None,
    ) -> None:
        self.run = run
        self.reviewer = reviewer
        self.queue = queue
        self.out = out
        by_id = {answer.id: answer for answer in answers}
        numbers = {name: n for n, name in enumerate(dict.fromkeys(one.answer_id for one in queue.chosen))}
        self._answers = [by_id[name] for name in numbers]
        self._numbers = numbers
        self._prompts = prompts
        self._others = others
        spans = {name: {one.start: one for one in by_id[name].sentences} for name in numbers}
        self._items = [_Item(numbers[one.answer_id], spans[one.answer_id][one.start], one) for one in queue.chosen]
        if out.exists():
            append_shared(out, Decision, [])
        old = read_decisions([out]) if out.exists() and out.stat().st_size else []
        self._acts = [one for one in old if one.reviewer == reviewer]

    @property
    def acts(self) -> list[Decision]:
        """All acts of this reviewer, in their order."""
        return list(self._acts)

    def left(self) -> int:
        """The sentences of the queue of which some part is neither decided nor skipped."""
        spans: dict[str, list[Decision]] = defaultdict(list)
        for one in standing(self._acts):
            spans[one.answer_id].append(one)
        return sum(
            bool(_rest(self._answers[item.number].response, item.sentence, spans[item.chosen.answer_id]))
            for item in self._items
        )

    def overview(self) -> Payload:
        """What the page needs at its start: the places of all sentences of the queue."""
        items = [[item.number, item.sentence.start, item.sentence.end] for item in self._items]
        names = {"run": self.run, "reviewer": self.reviewer, "queue": self.queue.name}
        return {**names, "items": items, "of": self.queue.population}

    def answer(self, number: int) -> Payload:
        """One answer with its question, its reference, and what may be shown of its sentences in the queue.

        Raises:
            IndexError: there is no such answer.
        """
        annotation = self._answers[number]
        prompt = self._prompts[annotation.prompt_id]
        shown = {i: self._shown(item) for i, item in enumerate(self._items) if item.number == number}
        return {
            "q": prompt.question,
            "ref": prompt.passages,
            "src": [one and one.model_dump(exclude_defaults=True) for one in prompt.sources or []],
            "t": annotation.response,
            "s": [[one.start, one.end, one.kind] for one in annotation.sentences],
            "shown": shown,
        }

    def _shown(self, item: _Item) -> Payload:
        """What others say of a sentence. Of a blind one the judges stay hidden: the page does not have their labels."""
        one, annotation = item.sentence, self._answers[item.number]
        opinions = self._others.opinions(annotation, one) if self._others else []
        of_people = opinions if self._others and self._others.people else []
        if item.chosen.blind:
            return {"blind": True, "people": [given._asdict() for given in of_people]}
        return {
            "judge": {"l": one.label, "st": one.status, "c": one.confidence, "ev": one.evidence, "re": one.reason},
            "judges": [given._asdict() for given in opinions if given not in of_people],
            "people": [given._asdict() for given in of_people],
        }

    def since(self, count: int) -> list[Payload]:
        """All acts but the first ``count`` ones, for pages that have not seen them."""
        return [
            {
                "id": one.id,
                "act": one.act,
                "a": self._numbers.get(one.answer_id),
                "b": one.start,
                "e": one.end,
                "l": one.label,
                "undoes": one.undoes,
                "s": one.seconds,
            }
            for one in self._acts[count:]
        ]

    def tell(self, acts: Iterable[Told]) -> Reply:
        """Write acts to the file, in their order; when this returns they are on the disk.

        An act that does not fit what has been decided on another page meanwhile is refused, and so are those that
        make no sense. An act that is there already is not written again.

        Raises:
            UserError: the file cannot be written; then none of the acts is kept.
        """
        made: list[Decision] = []
        saved, refused = [], {}
        known = {one.id for one in self._acts}
        for told in acts:
            if told.id not in known:
                try:
                    made.append(self._decision(told, [*self._acts, *made]))
                except ValueError as error:  # pydantic's are ValueErrors, too
                    refused[told.id] = str(error)
                    continue
                known.add(told.id)
            saved.append(told.id)
        if made:
            append_shared(self.out, Decision, made)
            self._acts += made
        return Reply(saved, refused)

    def _decision(self, told: Told, before: list[Decision]) -> Decision:
        """What the file says of an act. ``ValueError``: it does not fit those ``before``, or makes no sense."""
        stands = standing(before)
        at = datetime.now(UTC) - timedelta(seconds=told.ago)
        when = {"id": told.id, "act": told.act, "at": at.replace(microsecond=at.microsecond // 1000 * 1000)}
        if told.act == "undo":
            undone = next((one for one in stands if one.id == told.undoes), None)
            if undone is None:
                raise ValueError("is undone already")
            return undone.model_copy(update=when | {"undoes": undone.id, "label": None, "note": None, "seconds": None})
        if told.item >= len(self._items):
            raise ValueError("is not in the queue")
        item = self._items[told.item]
        said = {"label": told.label, "note": told.note or None, "seconds": round(told.seconds, 1)}
        return Decision.model_validate(when | said | self._about(item, told, stands))

    def _about(self, item: _Item, told: Told, stands: list[Decision]) -> Payload:
        """What a decision says of its sentence, beside what the reviewer says."""
        answer = self._answers[item.number]
        text = answer.response[told.start : told.end]
        start = told.start + len(text) - len(text.lstrip())
        end = start + len(text.strip())
        parts = [one for one in answer.sentences if one.start < end and start < one.end]
        if item.sentence not in parts:
            raise ValueError("is not where the decision is")
        there = [one for one in stands if one.answer_id == answer.id and one.start < end and start < one.end]
        if unknown := [one for one in there if one.id not in told.known]:
            raise ValueError(f"was decided on another page: {unknown[0].label or 'skipped'}")
        judged = overlapping(answer.sentences, Part(start=start, end=end)) or item.sentence
        return {
            "prompt_id": answer.prompt_id,
            "answer_id": answer.id,
            "response": answer.response,
            "topic": self._prompts[answer.prompt_id].shared_topic,
            "start": start,
            "end": end,
            "kind": item.sentence.kind,
            "made_of": _parts(parts, start, end),
            "reviewer": self.reviewer,
            "judged": judged.label,
            "judged_confidence": judged.confidence,
            "judge": answer.judge,
            "shown": not item.chosen.blind and judged.label is not None,
            "queue": self.queue.name,
            "inclusion": self.queue.inclusion(parts),
            "adjudicates": list(item.chosen.adjudicates),
        }


def _rest(text: str, sentence: Sentence, decided: list[Decision]) -> str:
    """What is left of a sentence beside what was decided, without white space."""
    inside = range(sentence.start, sentence.end)
    return "".join(text[i] for i in inside if not any(one.start <= i < one.end for one in decided)).strip()


def _parts(parts: list[Sentence], start: int, end: int) -> list[Part]:
    """The sentences that a span was made of; none where it is one of them as it was."""
    if [(one.start, one.end) for one in parts] == [(start, end)]:
        return []
    return [Part(start=one.start, end=one.end) for one in parts]
