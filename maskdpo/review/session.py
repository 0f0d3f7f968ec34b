"""One reviewer at one queue: what the page is told, and how the acts of the reviewer become decisions in the file."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from maskdpo.errors import UserError, first_problem
from maskdpo.io.append import append_shared, locked, refuse_parquet
from maskdpo.review.others import Others, left_of
from maskdpo.review.queue import Chosen, ReviewQueue
from maskdpo.review.told import Reply, Told
from maskdpo.schemas import Annotation, Decision, Part, Prompt, Sentence
from maskdpo.verdicts.gold import overlapping
from maskdpo.verdicts.people import read_decisions, standing

Payload = dict[str, Any]


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
        InputError: ``out`` is Parquet by its name, or is there and holds other lines than decisions.
        UserError: it cannot be written.
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
        refuse_parquet(out)
        self._acts = [one for one in self.in_file() if one.reviewer == reviewer]

    @property
    def acts(self) -> list[Decision]:
        """All acts of this reviewer, in their order."""
        return list(self._acts)

    def in_file(self) -> list[Decision]:
        """The acts of all reviewers who share the file, as it is now."""
        if not self.out.exists():
            return []
        try:
            with locked(self.out, Decision):
                return read_decisions([self.out]) if self.out.stat().st_size else []
        except OSError as error:
            raise UserError(f"{self.out}: cannot be written: {error.strerror}") from None

    def left(self, acts: Iterable[Decision]) -> int:
        """The sentences of the queue of which a reviewer with these acts has neither decided nor skipped some part."""
        spans: dict[str, list[Decision]] = defaultdict(list)
        for one in standing(acts):
            spans[one.answer_id].append(one)
        return sum(
            bool(left_of(self._answers[item.number], item.sentence, spans[item.chosen.answer_id]))
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

    def tell(self, acts: Iterable[Mapping[str, Any]]) -> Reply:
        """Write acts to the file, in their order; when this returns they are on the disk.

        An act that does not fit what has been decided on another page meanwhile is refused, and so are those that
        make no sense: each alone, the others are written. An act that is there already is not written again.

        Args:
            acts: the fields of ``Told``, not validated yet but for ``id``, which is a string.

        Raises:
            UserError: the file cannot be written; then none of the acts is kept.
        """
        made: list[Decision] = []
        saved, refused = [], {}
        known = {one.id for one in self._acts}
        for fields in acts:
            name = fields["id"]
            if name not in known:
                try:
                    made.append(self._decision(Told.model_validate(fields), [*self._acts, *made]))
                except ValidationError as error:
                    refused[name] = "{}: {}".format(*first_problem(error))
                    continue
                except ValueError as error:
                    refused[name] = str(error)
                    continue
                known.add(name)
            saved.append(name)
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
                raise ValueError("the decision that it takes back is undone already")
            return undone.model_copy(update=when | {"undoes": undone.id, "label": None, "note": None, "seconds": None})
        if told.item >= len(self._items):
            raise ValueError("the sentence is not in the queue")
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
            raise ValueError("the sentence is not where the decision is")
        there = [one for one in stands if one.answer_id == answer.id and one.start < end and start < one.end]
        if any(one.id not in told.known for one in there):
            raise ValueError("the sentence was decided on another page meanwhile")
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
            "shown": (not item.chosen.blind and judged.label is not None) if judged == item.sentence else None,
            "queue": self.queue.name,
            "inclusion": self.queue.inclusion(parts),
            "adjudicates": list(item.chosen.adjudicates),
        }


def _parts(parts: list[Sentence], start: int, end: int) -> list[Part]:
    """The sentences that a span was made of; none where it is one of them as it was."""
    if [(one.start, one.end) for one in parts] == [(start, end)]:
        return []
    return [Part(start=one.start, end=one.end) for one in parts]
