"""Label Studio: an answer with its labels is a task with a pre-annotation; what people made of it comes back as
decisions. Spans count code points, as in records."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from maskdpo.formats import NOT_JUDGED
from maskdpo.formats.corrections import Corrected, Suggested, corrections, label_named
from maskdpo.schemas import Annotation, Decision, Label, Prompt, Sentence

COLOURS = {
    Label.NO_HALLUCINATION: "#2e7d32",
    Label.CONTRADICTORY: "#c62828",
    Label.UNVERIFIABLE: "#ef6c00",
    Label.HALLUCINATION: "#6a1b9a",
    Label.NO_FACT: "#616161",
    NOT_JUDGED: "#1565c0",
}

CONFIG = f"""<View>
  <Labels name="label" toName="response">
{"".join(f'    <Label value="{name}" background="{colour}"/>' + chr(10) for name, colour in COLOURS.items())}\
  </Labels>
  <Header value="Question"/>
  <Text name="prompt" value="$prompt"/>
  <Header value="Answer"/>
  <Text name="response" value="$response"/>
  <Header value="Reference"/>
  <Text name="reference" value="$reference"/>
</View>
"""
"""The labelling interface. The tasks refer to its names."""


def to_label_studio(annotation: Annotation, prompt: Prompt) -> dict[str, Any]:
    """A task. Evidence and reason are the note of a region, the confidence of the judge is its score, the probabilities
    of the labels are in its ``meta``, and reasoning before the answer is in the ``meta`` of the task."""
    judge = annotation.judge
    regions = [_region(annotation, i, sentence) for i, sentence in enumerate(annotation.sentences)]
    task: dict[str, Any] = {
        "data": {
            "id": annotation.id,
            "prompt_id": annotation.prompt_id,
            "topic": prompt.shared_topic,
            "prompt": prompt.question,
            "response": annotation.response,
            "reference": "\n\n".join(prompt.passages),
        },
        "predictions": [{"model_version": judge.model or judge.name if judge else "gold", "result": regions}],
    }
    return task if annotation.reasoning is None else task | {"meta": {"reasoning": annotation.reasoning}}


def _region(annotation: Annotation, i: int, sentence: Sentence) -> dict[str, Any]:
    label = sentence.label.value if sentence.label else NOT_JUDGED
    region: dict[str, Any] = {
        "id": f"{annotation.id}-{i}",
        "from_name": "label",
        "to_name": "response",
        "type": "labels",
        "value": {
            "start": sentence.start,
            "end": sentence.end,
            "text": annotation.response[sentence.start : sentence.end],
            "labels": [label],
        },
    }
    if sentence.confidence is not None:
        region["score"] = sentence.confidence
    notes = [note for note in (sentence.evidence, sentence.reason) if note]
    meta: dict[str, Any] = {"text": notes} if notes else {}
    if sentence.scores:
        meta["scores"] = sentence.model_dump(mode="json", include={"scores"})["scores"]
    return region | {"meta": meta} if meta else region


# --- what comes back: the JSON export of Label Studio (docs/formats.md) --------------------------------


class Data(BaseModel):
    """The data of a task, as ``to_label_studio`` writes them."""

    id: str
    prompt_id: str
    response: str
    topic: str | None = None


class Value(BaseModel):
    start: int
    end: int
    text: str | None = None
    labels: list[str]


class Region(BaseModel):
    value: Value
    score: float | None = None


class Result(BaseModel):
    """A list of regions and of other results, such as a choice for the whole task, which are left alone."""

    result: list[dict[str, Any]] = []

    def regions(self) -> Iterator[Region]:
        for one in self.result:
            if one.get("type") == "labels":
                yield Region.model_validate(one)


class Work(Result):
    """What one person has done with a task."""

    id: int | str
    completed_by: int | str | dict[str, Any] | None = None
    was_cancelled: bool = False
    """The person skipped the task."""
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def person(self) -> str:
        by = self.completed_by
        if isinstance(by, dict):
            by = by.get("email") or by.get("id")
        return f"label-studio-{by}" if isinstance(by, int) else str(by or "label-studio")


class Task(BaseModel):
    """A task of the JSON export."""

    data: Data
    annotations: list[Work]
    predictions: list[Result | int] = []
    """Some exports have their numbers only."""


def from_label_studio(task: Task, line: int) -> list[Decision]:
    """Every labelled region of every person as a decision. Regions that say "not judged" are none."""
    del line
    text = task.data.response
    shown = next((one for one in task.predictions if isinstance(one, Result)), Result())
    suggested = [
        Suggested(*_span(region, text), label_named(region.value.labels[0]), region.score) for region in shown.regions()
    ]
    found: list[Decision] = []
    for work in task.annotations:
        if work.was_cancelled:
            continue
        spans = [
            Corrected(*_span(region, text), label)
            for region in work.regions()
            if (label := _label(region, task)) is not None
        ]
        found += corrections(
            spans,
            suggested,
            id_prefix=f"label-studio-{work.id}-{task.data.id}",
            prompt_id=task.data.prompt_id,
            answer_id=task.data.id,
            response=text,
            topic=task.data.topic,
            reviewer=work.person,
            at=work.updated_at or work.created_at,
            shown=bool(suggested),
        )
    return found


def _label(region: Region, task: Task) -> Label | None:
    labels = region.value.labels
    if len(labels) != 1:
        raise ValueError(f"a region of task {task.data.id!r} has {len(labels)} labels, not one")
    return label_named(labels[0])


def _span(region: Region, text: str) -> tuple[int, int]:
    """The span in code points. Early versions of Label Studio count UTF-16 units (label-studio#1008): the region's own
    text decides which it is.

    Raises:
        ValueError: its text stands at neither place.
    """
    value = region.value
    units = text.encode("utf-16-le", "surrogatepass")
    before, inside = units[: 2 * value.start], units[2 * value.start : 2 * value.end]
    in_utf16 = tuple(len(part.decode("utf-16-le", "replace")) for part in (before, before + inside))
    for start, end in ((value.start, value.end), in_utf16):
        if 0 <= start < end <= len(text) and value.text in (None, text[start:end]):
            return start, end
    raise ValueError(
        f"the region {value.start}:{value.end} says {value.text!r}, which is not what the answer has there"
    )
