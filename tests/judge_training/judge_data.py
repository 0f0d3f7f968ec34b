"""Labelled sentences that follow a rule which tiny models learn in seconds, and tiny bases."""

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from maskdpo.io import write_records
from maskdpo.schemas import Annotation, Label, Prompt, Sentence, Status

REFERENCE = "The mill by the river grinds flour."
SAYS = {
    Label.NO_HALLUCINATION: "The mill grinds flour",
    Label.HALLUCINATION: "Zebras quack",
    Label.CONTRADICTORY: "Zebras quack",
    Label.UNVERIFIABLE: "Jam xylophone",
    Label.NO_FACT: "???",
}
"""The label of a sentence can be read off its first word, so that a tiny model learns it in seconds."""


def write_data(
    folder: Path,
    labels: list[Label],
    count: int = 96,
    *,
    name: str = "labelled",
    scores: dict[Label, dict[Label, float]] | None = None,
    topics: int = 12,
) -> tuple[Path, Path]:
    """(annotations, prompts): answers of one sentence, whose labels go round."""
    prompts, annotations = [], []
    for i in range(count):
        label = labels[i % len(labels)]
        text = f"{SAYS[label]} {i}."
        # topics and labels must not go together
        topic = f"topic {i // len(labels) % topics}"
        prompts.append(Prompt(id=f"{name}-{i}", prompt="What is there?", reference=REFERENCE, topic=topic))
        sentence = Sentence(start=0, end=len(text), label=label, scores=(scores or {}).get(label))
        annotations.append(Annotation(id=f"{name}-{i}", prompt_id=f"{name}-{i}", response=text, sentences=[sentence]))
    files = folder / f"{name}.jsonl", folder / f"{name}.prompts.jsonl"
    write_records(files[0], annotations)
    write_records(files[1], prompts)
    return files


def unjudged(start: int, end: int, status: Status, **more: Any) -> Sentence:
    return Sentence(start=start, end=end, status=status, **more)


def save_encoder(folder: Path, tokenizer_of: str) -> Path:
    """A random BERT without any head, with the tokenizer of another folder."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_of)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512, pad_token_id=tokenizer.pad_token_id, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
