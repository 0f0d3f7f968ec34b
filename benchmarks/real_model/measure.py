"""What a line reports of the answers of a model, and how far the model is from the one before."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from benchmarks.closed_world.measure import FROM_EVALUATE, Figures
from maskdpo.devices import pick_device
from maskdpo.evaluate.factuality import CLAIMS, summarise
from maskdpo.models import load_model, load_tokenizer
from maskdpo.schemas import Annotation, Kind, Label, Pair, Prompt
from maskdpo.text.claims.count import named
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import Layout, collate, micro_batches
from maskdpo.train.data.encode import encode_pairs, encoder_for
from maskdpo.train.data.encoded_pair import Drop
from maskdpo.train.data.measures import kept, lengths
from maskdpo.train.effects.divergence import divergence_of

REPORTED = FROM_EVALUATE | {"not_judged": "not judged / answer", "claims": CLAIMS}
"""Our names for figures of ``evaluate``; ``claims`` are different names, numbers and dates."""

TOPICS = 16
LAYOUT: Layout = "shared"
"""One row for both answers of a pair; the training that comes before has tried that this is exact for the model."""


def figures(annotations: Sequence[Annotation], prompts: Mapping[str, Prompt], model: str) -> Figures:
    """Means an answer; ``right_of_all`` is a share of all sentences. ``torn`` ends of answers that were cut off are no
    sentences, ``contradictory`` is a part of ``wrong``, and ``new_right`` of ``right``.

    Args:
        model: whose tokens are counted.
    """
    summary, answers = summarise(annotations, prompts), len(annotations)
    found = {ours: summary.figures[theirs].value for ours, theirs in REPORTED.items()}
    spans = [sentence for annotation in annotations for sentence in annotation.sentences]
    torn = sum(sentence.kind is Kind.FRAGMENT for sentence in spans)
    labels = Counter(sentence.label for sentence in spans)
    tokens = load_tokenizer(model)([annotation.response for annotation in annotations])["input_ids"]
    return found | {
        "sentences": (len(spans) - torn) / answers,
        "torn": torn / answers,
        "contradictory": labels[Label.CONTRADICTORY] / answers,
        "new_right": sum(new_right(one, prompts[one.prompt_id].topic_or_id) for one in annotations) / answers,
        "tokens": sum(map(len, tokens)) / answers,
    }


def new_right(annotation: Annotation, topic: str) -> int:
    """Right sentences that name something (a name, a number, a date) that is not the topic and that no right sentence
    before them names: an answer gains nothing by saying twice what is right. A sentence that names nothing counts as
    not new, and one that names a quantity in other words as new."""
    number, before = 0, named(f"of {topic}")
    for sentence in annotation.whole_sentences:
        if sentence.label is Label.NO_HALLUCINATION:
            here = named(annotation.response[sentence.start : sentence.end])
            number += not here <= before
            before |= here
    return number


def left_out(pairs: Sequence[Pair], model: str) -> float:
    """Share of the tokens of both answers that train with DPO and not with Mask-DPO, as the trainer counts them."""
    config = TrainConfig(model=model, method="mask-dpo", eos="drop")
    encoded = encode_pairs(pairs, encoder_for(config, load_tokenizer(model))).pairs
    return 1 - float(kept(encoded).sum() / lengths(encoded)[:, 1:].sum())


@torch.inference_mode()
def divergence(answers: Sequence[Annotation], prompts: Mapping[str, Prompt], model: str, reference: str) -> float:
    """Nats an answer: over the first two answers to each of the first ``TOPICS`` prompts, the sum over their tokens of
    the Kullback-Leibler divergence of the next token. The mean log ratio of whole answers has the same expectation, and
    more noise."""
    by_prompt: dict[str, list[Annotation]] = {}
    for answer in answers:
        by_prompt.setdefault(answer.prompt_id, []).append(answer)
    pairs = [_as_pair(prompts[prompt], *two[:2]) for prompt, two in by_prompt.items() if len(two) > 1][:TOPICS]
    config = TrainConfig(model=model, method="dpo", eos="drop")
    encoded = encoder_for(config, load_tokenizer(model)).encode_all(pairs)
    kept = [pair for pair in encoded if not isinstance(pair, Drop)]  # an empty answer has no tokens
    device = pick_device(None)
    after, before = (load_model(name, dtype=torch.float32, device=device).eval() for name in (model, reference))
    total = 0.0
    for group in micro_batches(kept, config.tokens_per_batch, LAYOUT):
        total += float(divergence_of(after, before, collate(group, LAYOUT).to(device)).sum())
    return total / (2 * len(kept))


def _as_pair(prompt: Prompt, one: Annotation, other: Annotation) -> Pair:
    """Two answers as the trainer reads them, behind one prompt."""
    return Pair(
        id=one.id,
        prompt_id=prompt.id,
        topic=prompt.topic_or_id,
        prompt=prompt.prompt,
        chosen=one.response,
        rejected=other.response,
        chosen_sentences=[],
        rejected_sentences=[],
        chosen_finish_reason=one.finish_reason,
        rejected_finish_reason=other.finish_reason,
    )
