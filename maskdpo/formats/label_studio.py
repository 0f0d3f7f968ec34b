"""Label Studio: an answer with its labels is a task with a pre-annotation. Spans count code points, as in records."""

from typing import Any

from maskdpo.formats import NOT_JUDGED
from maskdpo.schemas import Annotation, Label, Prompt, Sentence

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
