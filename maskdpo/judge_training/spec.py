"""What a base reads and says as a judge: the spec of a new judge, or that of a base that judges already."""

from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from maskdpo.classifier.spec import SPEC_FILE, Chunk, ClassifierSpec, Input, LabelSpec, load_spec, presets
from maskdpo.errors import UserError
from maskdpo.judge_training.settings import TrainJudgeConfig
from maskdpo.judge_training.targets import Classes
from maskdpo.schemas import Label

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
