"""Argilla 2: records whose labels are suggestions of a span question, for ``dataset.records.from_json``.

``docs/formats.md`` has the settings of a dataset for such records.
"""

from typing import Any

from maskdpo.formats import NOT_JUDGED
from maskdpo.schemas import Annotation, Prompt


def to_argilla(annotation: Annotation, prompt: Prompt) -> dict[str, Any]:
    """A record. The score of its suggestion is a list of one confidence per span, if the judge gave all of them."""
    spans = [
        {"start": sentence.start, "end": sentence.end, "label": sentence.label.value if sentence.label else NOT_JUDGED}
        for sentence in annotation.sentences
    ]
    suggestion: dict[str, Any] = {"value": spans}
    if annotation.judge:
        suggestion["agent"] = annotation.judge.model or annotation.judge.name
    scores = [sentence.confidence for sentence in annotation.sentences]
    if scores and None not in scores:
        suggestion["score"] = scores
    fields = {"prompt": prompt.question, "response": annotation.response, "reference": "\n\n".join(prompt.passages)}
    metadata = {"prompt_id": annotation.prompt_id, "topic": prompt.topic_or_id}
    if annotation.reasoning is not None:
        metadata["reasoning"] = annotation.reasoning
    return {
        "id": annotation.id,
        "fields": fields,
        "metadata": metadata,
        "suggestions": {"sentences": suggestion} if spans else {},
    }
