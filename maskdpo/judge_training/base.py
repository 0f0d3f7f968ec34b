"""The base of a judge: its weights with a head, which of them train, and an adapter."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from maskdpo.classifier.model import Classifier, load_classifier
from maskdpo.classifier.spec import ClassifierSpec
from maskdpo.errors import UserError
from maskdpo.extras import require
from maskdpo.judge_training.settings import TrainJudgeConfig
from maskdpo.models import load_model, load_pretrained, load_tokenizer

PEFT = "'maskdpo[lora]'"


@dataclass
class Base:
    """A classifier whose weights are to be trained."""

    classifier: Classifier
    adapter: Any = None
    """The ``PeftModel`` around the model, with ``lora_r``."""

    @property
    def model(self) -> PreTrainedModel:
        return self.classifier.model

    def merged(self) -> Classifier:
        """The classifier with the adapter added to its weights, in float32 on the CPU. Not to be trained after this."""
        model = self.adapter.to(device="cpu", dtype=torch.float32).merge_and_unload() if self.adapter else self.model
        return replace(self.classifier, model=model.cpu().eval())


def load_tokenizer_of(config: TrainJudgeConfig) -> PreTrainedTokenizerBase:
    """
    Raises:
        UserError: there is none, or only a slow one.
    """
    tokenizer = load_tokenizer(config.model)
    if not tokenizer.is_fast:
        raise UserError(f"{config.model}: has only a slow tokenizer, which does not say where its tokens are in a text")
    ids = tokenizer("Is this sentence true? Yes.", add_special_tokens=False)["input_ids"]
    if set(ids) <= {tokenizer.unk_token_id}:  # transformers makes an empty one where the files are missing
        raise UserError(
            f"{config.model}: has no tokenizer, or one to which every word is unknown: is tokenizer.json there?"
        )
    return tokenizer


def load_base(
    config: TrainJudgeConfig, spec: ClassifierSpec, tokenizer: PreTrainedTokenizerBase, device: str, *, fresh: bool
) -> Base:
    """The model with its head, in float32, with what does not train frozen.

    Args:
        fresh: the head is new; otherwise the base is a judge already.

    Raises:
        UserError: the model cannot be loaded.
    """
    torch.manual_seed(config.seed)  # of a new head and an adapter
    if not fresh:
        classifier = load_classifier(config.model, spec, dtype="float32", device=device)
    elif spec.head == "likelihood":
        model = load_model(config.model, dtype=torch.float32, device=device)
        classifier = Classifier(spec, model, tokenizer)
    else:
        classifier = Classifier(spec, _with_new_head(config, spec, device), tokenizer)
    if classifier.model.config.pad_token_id is None and tokenizer.pad_token_id is not None:
        classifier.model.config.pad_token_id = tokenizer.pad_token_id
    frozen = _freeze(classifier.model, config.last_layers)
    adapter = _add_adapter(classifier.model, config, spec, frozen) if config.lora_r else None
    return Base(classifier, adapter)


def _with_new_head(config: TrainJudgeConfig, spec: ClassifierSpec, device: str) -> PreTrainedModel:
    names = [label.name or label.label.value for label in spec.labels]
    options = {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "ignore_mismatched_sizes": True,  # a head of other labels is replaced
    }
    model = load_pretrained(
        config.model,
        AutoModelForSequenceClassification,
        dtype=torch.float32,
        device=device,
        options=options,
        new_head=True,
    )
    body = f"{model.base_model_prefix}."
    for name, module in model.named_modules():
        # a head for as many other labels would be taken over, with its labels mixed up
        if isinstance(module, nn.Linear) and module.out_features == len(names) and not name.startswith(body):
            nn.init.normal_(module.weight, std=getattr(model.config, "initializer_range", 0.02))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def _freeze(model: PreTrainedModel, last_layers: int) -> list[str]:
    """Freeze the embeddings of tokens, which are large and learn little here, with an output layer tied to them; and
    all layers but the last ones, where there are ``last_layers``.

    Returns:
        The names of the frozen layers.
    """
    embeddings = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module]
    for module in embeddings:
        module.requires_grad_(False)
    name, layers = _layers(model)
    frozen = [f"{name}.{i}" for i in range(len(layers) - last_layers)] if last_layers else []
    for layer in layers[: len(frozen)]:
        layer.requires_grad_(False)
    if frozen:  # what stands before the layers, such as embeddings of positions
        first = f"{name}."
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.startswith(first):
                break
            parameter.requires_grad_(False)
    return frozen


def _layers(model: PreTrainedModel) -> tuple[str, Sequence[nn.Module]]:
    """The longest list of modules in the model: its layers."""
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise UserError(f"{model.config.model_type}: has no list of layers; use `last_layers` 0")
    name, layers = max(lists, key=lambda one: len(one[1]))
    return name, list(layers)


def _add_adapter(model: PreTrainedModel, config: TrainJudgeConfig, spec: ClassifierSpec, frozen: Sequence[str]) -> Any:
    """Put a LoRA adapter into all linear layers; a head of classes is trained whole.

    Raises:
        UserError: peft is missing, or it finds no layer for an adapter.
    """
    require("peft", install=PEFT, purpose="`lora_r`")
    from peft import LoraConfig, get_peft_model

    classifies = spec.head == "sequence-classification"
    settings = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        task_type="SEQ_CLS" if classifies else "CAUSAL_LM" if spec.head == "likelihood" else "SEQ_2_SEQ_LM",
        exclude_modules=rf"({'|'.join(map(re.escape, frozen))})\..*" if frozen else None,
    )
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        raise UserError(f"`lora_r`: {' '.join(str(error).split())}") from None
