"""The base of a judge: which head it gets, what it reads, and which of its weights train."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from maskdpo.classifier.model import Classifier, load_classifier
from maskdpo.classifier.spec import SPEC_FILE, Chunk, ClassifierSpec, Input, LabelSpec, load_spec, presets
from maskdpo.errors import UserError
from maskdpo.extras import require
from maskdpo.models import load_model, load_pretrained, load_tokenizer
from maskdpo.schemas import Label
from maskdpo.train_judge.settings import TrainJudgeConfig
from maskdpo.train_judge.targets import Classes

PEFT = "'maskdpo[lora]'"

WORDS: dict[Label, tuple[str, ...]] = {
    Label.NO_HALLUCINATION: ("yes",),
    Label.HALLUCINATION: ("no",),
    Label.CONTRADICTORY: ("no",),
    Label.UNVERIFIABLE: ("unknown", "maybe"),
    Label.NO_FACT: ("none", "neither", "opinion"),
}
"""What a language model says for each class; the first word whose first token is no other class's."""

MEANINGS = {
    Label.CONTRADICTORY: "with {word} if the reference contradicts it",
    Label.UNVERIFIABLE: "with {word} if the reference does not say it",
    Label.NO_FACT: "with {word} if the sentence states no fact to check",
}
QUESTION = """<reference>
{reference}
</reference>

<sentence>
{sentence}
</sentence>

Is every claim of the sentence supported by the reference? """
"""The question of the protocol ``yes-no``, so that training begins at what the model answers there."""
WITH_CONTEXT = """<reference>
{reference}
</reference>

<before>
{context}
</before>

<sentence>
{sentence}
</sentence>

Is every claim of the sentence supported by the reference? """


def judge_already(name: str) -> ClassifierSpec | None:
    """The spec of a base that judges already: a preset, or a folder with ``classifier.yaml``.

    Raises:
        UserError: the spec is not valid, or its head cannot be trained.
    """
    if name not in presets() and not (Path(name).expanduser() / SPEC_FILE).is_file():
        return None
    spec = load_spec(name)[1]
    if spec.head == "token-classification":
        raise UserError(f"{name}: is a judge with the head {spec.head}, which train-judge cannot train")
    return spec


def kind_of(name: str, config: Any) -> Literal["decoder", "encoder"]:
    """
    Raises:
        UserError: it is neither an encoder nor a decoder language model.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    )
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING as ENCODERS

    if not getattr(config, "is_encoder_decoder", False):
        if type(config) in ENCODERS and not getattr(config, "is_decoder", False):
            return "encoder"
        if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
            return "decoder"
        if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            return "encoder"
    raise UserError(
        f"{name}: {config.model_type} is neither an encoder nor a decoder language model; an encoder-decoder needs a "
        f"{SPEC_FILE} that says how it answers"
    )


def new_spec(
    kind: str, classes: Classes, tokenizer: PreTrainedTokenizerBase, config: TrainJudgeConfig
) -> ClassifierSpec:
    """What a base without a spec reads and says."""
    common: dict[str, Any] = {
        "max_length": config.max_length,
        "chunk": Chunk(size=config.passage_words, unit="words"),
        "chunks": config.passages,
        "context": config.preceding,
    }
    if kind == "encoder":
        return ClassifierSpec(
            head="sequence-classification",
            input=Input(text="{reference}", pair="{sentence}"),
            labels=tuple(LabelSpec(label=label, name=label.value) for label in classes),
            **common,
        )
    chat = bool(tokenizer.chat_template)
    words = _words(classes, tokenizer, chat)
    question = (WITH_CONTEXT if config.preceding else QUESTION) + _answers(classes, words)
    return ClassifierSpec(
        head="likelihood",
        input=Input(text=question if chat else f"{question}\nAnswer:", chat=chat),
        labels=tuple(LabelSpec(label=label, token=words[label][1]) for label in classes),
        **common,
    )


def _answers(classes: Classes, words: dict[Label, tuple[str, str]]) -> str:
    if Label.HALLUCINATION in classes:
        first = f"Answer with {words[Label.NO_HALLUCINATION][0]} or {words[Label.HALLUCINATION][0]}"
    else:
        first = f"Answer with {words[Label.NO_HALLUCINATION][0]}"
    more = [MEANINGS[label].format(word=words[label][0]) for label in classes if label in MEANINGS]
    return (", or ".join([first, *more]) if len(more) < 2 else f"{first}, {', '.join(more[:-1])}, or {more[-1]}") + "."


def _words(classes: Classes, tokenizer: PreTrainedTokenizerBase, chat: bool) -> dict[Label, tuple[str, str]]:
    """The word of each class, and its first token as the vocabulary spells it.

    Raises:
        UserError: the words of two classes begin with the same token.
    """
    taken: dict[Label, tuple[str, str]] = {}
    for label in classes:
        for word in WORDS[label]:
            ids = tokenizer(word if chat else f" {word}", add_special_tokens=False, verbose=False)["input_ids"]
            token = str(tokenizer.convert_ids_to_tokens(ids[0]))
            if token not in {other for _, other in taken.values()}:
                taken[label] = (word, token)
                break
        else:
            raise UserError(
                f"{tokenizer.name_or_path}: the words {' and '.join(WORDS[label])} begin with tokens of other answers; "
                "take fewer `classes`, or another base"
            )
    return taken


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
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    if not tokenizer.is_fast:
        raise UserError(f"{config.model}: has only a slow tokenizer, which does not say where its tokens are in a text")
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
        model = load_model(config.model, dtype=torch.float32, device=device, trust_remote_code=config.trust_remote_code)
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
    return load_pretrained(
        config.model,
        AutoModelForSequenceClassification,
        dtype=torch.float32,
        device=device,
        trust_remote_code=config.trust_remote_code,
        options=options,
        new_head=True,
    )


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
