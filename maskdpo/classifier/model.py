"""A classifier in this process: loading, its scores for encoded items, and the logits that training needs.

Tensor names carry shapes: B items, T tokens, L labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from maskdpo.backends.choices import PartialReply, Slot, fill_slots, head_reads
from maskdpo.backends.rows import forward
from maskdpo.classifier.inputs import Encoded
from maskdpo.classifier.spec import ClassifierSpec
from maskdpo.devices import Dtype, compute_type
from maskdpo.errors import UserError
from maskdpo.models import load_config, load_model, load_pretrained, load_tokenizer

_LOADERS: dict[str, Any] = {
    "sequence-classification": AutoModelForSequenceClassification,
    "sequence-to-sequence": AutoModelForSeq2SeqLM,
    "token-classification": AutoModelForTokenClassification,
}


@dataclass
class Classifier:
    """A model with its spec and tokenizer. Trainers make one of parts that they have loaded themselves."""

    spec: ClassifierSpec
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def __post_init__(self) -> None:
        self.label_ids = label_ids(self.spec, self.tokenizer)


def load_classifier(name: str, spec: ClassifierSpec, *, device: str, dtype: Dtype = "auto") -> Classifier:
    """The model of a folder or a Hub id, from safetensors, without code from its repository.

    Args:
        dtype: to compute in; ``auto`` is bfloat16 where the hardware computes in it.

    Raises:
        UserError: the model cannot be loaded, or the labels of its config are not those of the spec.
    """
    tokenizer = load_tokenizer(name)
    if not tokenizer.is_fast:
        raise UserError(f"{name}: has only a slow tokenizer, which does not say where its tokens are in a text")
    kind: torch.dtype = getattr(torch, compute_type(dtype, device))
    if spec.head == "likelihood":
        model = load_model(name, dtype=kind, device=device)
    else:
        check_labels(spec, load_config(name), name)
        model = load_pretrained(name, _LOADERS[spec.head], dtype=kind, device=device)
    return Classifier(spec, model.eval(), tokenizer)


def check_labels(spec: ClassifierSpec, config: Any, name: str) -> None:
    """Compare the labels of a spec with the config of a model that classifies.

    Raises:
        UserError: their number differs, or the config gives names (other than ``LABEL_0``) that the spec does not have.
    """
    if spec.head == "sequence-to-sequence":
        return
    stated = {int(index): str(label) for index, label in config.id2label.items()}
    if len(stated) != len(spec.labels):
        raise UserError(f"{name}: the model has {len(stated)} labels ({stated}), its spec has {len(spec.labels)}")
    for index, label in enumerate(spec.labels):
        theirs = stated.get(index, "")
        if theirs != f"LABEL_{index}" and theirs.casefold() != (label.name or "").casefold():
            raise UserError(
                f"{name}: the model calls label {index} {theirs!r}, its spec calls it {label.name!r} "
                f"({label.label}). Correct `labels` of the spec: they stand in the order of the model, {stated}"
            )


def label_ids(spec: ClassifierSpec, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token ids of the labels of a model that writes them; empty for the other heads.

    Raises:
        UserError: a token is not in the vocabulary.
    """
    vocabulary = tokenizer.get_vocab() if any(label.token is not None for label in spec.labels) else {}
    tokens = [label.token for label in spec.labels if label.token is not None]
    if missing := [token for token in tokens if token not in vocabulary]:
        raise UserError(
            f"the vocabulary of {tokenizer.name_or_path} has no token {missing[0]!r}; `token` of a label is spelled as "
            "the vocabulary spells it, such as '▁yes', 'Ġyes' or 'yes'"
        )
    if len(set(tokens)) < len(tokens):
        raise UserError(f"two labels have the same token: {', '.join(map(repr, tokens))}")
    return [int(vocabulary[token]) for token in tokens]


def collate(classifier: Classifier, items: Sequence[Encoded]) -> dict[str, Tensor]:
    """[B, T] ids and mask, padded on the right, on the device of the model."""
    width, device = max(len(item.ids) for item in items), classifier.model.device
    pad = _pad_id(classifier)

    def rows(lists: Sequence[Sequence[int]], filler: int) -> Tensor:
        return torch.tensor([[*row, *[filler] * (width - len(row))] for row in lists], device=device)

    batch = {
        "input_ids": rows([item.ids for item in items], pad),
        "attention_mask": rows([[1] * len(item.ids) for item in items], 0),
    }
    types = [item.type_ids for item in items if item.type_ids is not None]
    if len(types) == len(items):
        batch["token_type_ids"] = rows(types, 0)
    return batch


def label_logits(classifier: Classifier, batch: dict[str, Tensor]) -> Tensor:
    """[B, L] float32 logits of the labels; [B, T, L] with ``token-classification``. Differentiable.

    Their softmax are the scores of judging.
    """
    model, head = classifier.model, classifier.spec.head
    if head == "likelihood":
        return _next_token(model, batch)[:, classifier.label_ids].float()
    if head == "sequence-to-sequence":
        start = torch.full_like(batch["input_ids"][:, :1], model.config.decoder_start_token_id)
        inputs = {name: value for name, value in batch.items() if name != "token_type_ids"}
        logits: Tensor = model(**inputs, decoder_input_ids=start).logits[:, 0, classifier.label_ids]
        return logits.float()
    output: Tensor = model(**batch).logits
    return output.float()


def _next_token(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """[B, V] logits of the token after each row."""
    last_B = batch["attention_mask"].sum(1) - 1
    row_B = torch.arange(len(last_B), device=model.device)
    with head_reads(model, row_B, last_B):
        # causal attention needs no mask for padding on the right
        logits: Tensor = forward(model, batch["input_ids"], use_cache=False, keep_last=False).logits
    return logits[:, 0] if logits.shape[1] == 1 else logits[row_B, last_B]


def scores(classifier: Classifier, items: Sequence[Encoded], batch_size: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """The index of each item, and its [L] probabilities ([T, L] with ``token-classification``), in any order.

    Items of similar length are read together. A causal model reads a beginning that neighbouring items have in common
    (the chunk) once.
    """
    if classifier.spec.head == "likelihood":
        yield from _likelihoods(classifier, items, batch_size)
        return
    order = iter(sorted(range(len(items)), key=lambda i: -len(items[i].ids)))
    while some := list(islice(order, batch_size)):
        with torch.inference_mode():
            shares = label_logits(classifier, collate(classifier, [items[i] for i in some])).softmax(-1).cpu().numpy()
        for i, share in zip(some, shares, strict=True):
            yield i, share[: len(items[i].ids)] if share.ndim == 2 else share


def _likelihoods(
    classifier: Classifier, items: Sequence[Encoded], batch_size: int
) -> Iterator[tuple[int, NDArray[Any]]]:
    slot = Slot((), tuple((token,) for token in classifier.label_ids))
    for start in range(0, len(items), batch_size):
        prompts = [item.ids for item in items[start : start + batch_size]]
        replies = [PartialReply(i, [slot]) for i in range(len(prompts))]
        fill_slots(classifier.model, prompts, replies, batch_size)
        for reply in replies:
            yield start + reply.prompt, np.asarray(reply.picks[0][1])


def _pad_id(classifier: Classifier) -> int:
    """The id that the model takes for padding: a decoder with a classification head finds the end of a text by it."""
    config = classifier.model.config
    for found in (getattr(config, "pad_token_id", None), classifier.tokenizer.pad_token_id):
        if found is not None:
            return int(found)
    return 0
