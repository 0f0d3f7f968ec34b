"""What has to be known of a model that scores (reference, sentence): its head, its input, its labels. Data, not code.

A spec is a YAML file: one of the presets, ``classifier.yaml`` in the folder of a model, or a file of the user's own.
"""

import hashlib
import json
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskdpo.errors import InputError, UserError, first_problem
from maskdpo.io.yaml_file import read_yaml
from maskdpo.schemas import RIGHT, WRONG, Label

SPEC_FILE = "classifier.yaml"
"""The file in the folder of a model that makes the folder a judge."""

Head = Literal["sequence-classification", "sequence-to-sequence", "token-classification", "likelihood"]
"""``sequence-classification``: one class per text. ``sequence-to-sequence``: the first decoded token.
``likelihood``: the next token of a causal language model. ``token-classification``: one class per token of an answer.
"""

NAMES = ("reference", "sentence", "context", "question", "answer", "passages", "count")
"""The variables of templates, written ``{name}``: a chunk of the reference; the sentence; the sentences of the answer
before it; the question; the whole answer; the chunk as numbered passages, and their number."""
_VARIABLE = re.compile(r"\{([^{}]*)\}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(_Part):
    """What the model reads: one text, or a pair of texts that the tokenizer joins. Kept to the letter."""

    text: Annotated[str, Field(min_length=1)]
    pair: str | None = None
    """The second text of a pair."""
    passage: str = "{reference}"
    """How ``{passages}`` writes one passage, with ``{number}`` from 1; passages stand on lines of their own."""
    joined_by: str | None = None
    """What stands between the sentences of a chunk. None: the text of the reference as it is."""
    chat: bool = False
    """The text is a message of the user, and the chat template of the tokenizer stands around it."""
    system: str | None = None
    """With ``chat``: the system message."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        used = {name for text in self.templates for name in _VARIABLE.findall(text)}
        if unknown := sorted(used - set(NAMES)):
            raise ValueError(f"{{{unknown[0]}}} is not given to templates; known: {', '.join(NAMES)}")
        if not used & {"reference", "passages"} or not used & {"sentence", "answer"}:
            raise ValueError("the templates need {reference} (or {passages}) and {sentence} (or {answer})")
        if self.chat and self.pair is not None:
            raise ValueError("`chat` goes with one text, not with a pair")
        if self.system is not None and not self.chat:
            raise ValueError("`system` goes with `chat`")
        return self

    @property
    def templates(self) -> list[str]:
        return [text for text in (self.system, self.text, self.pair) if text is not None]

    def uses(self, name: str) -> bool:
        """Whether a template shows this variable."""
        return any(f"{{{name}}}" in text for text in self.templates)


class LabelSpec(_Part):
    """One output of the model; its place in the list is its index."""

    label: Label
    """What the output stands for. A model that only knows right and wrong has ``hallucination`` for wrong."""
    name: str | None = None
    """What the config of the model calls it (``id2label``). Required where the config has names of its own."""
    token: str | None = None
    """For models that write the label: the text of its token, as the vocabulary spells it (``▁1``)."""


class Chunk(_Part):
    """The longest part of the reference that the model reads at once; a chunk ends where a sentence ends."""

    size: Annotated[int, Field(ge=16)]
    unit: Literal["words", "tokens"] = "tokens"
    """Words between white space (of Chinese and Japanese: two characters), or tokens of the model."""


class Published(_Part):
    """A figure that the authors publish. It was not measured here."""

    figure: str
    """Which figure on which data, such as ``balanced accuracy 0.75 on LLM-AggreFact``."""
    source: str


class ClassifierSpec(_Part):
    """A model that scores a sentence against a reference.

    Raises:
        ValidationError: the labels do not fit the head, or none of them means right or wrong.
    """

    model: str | None = None
    """The id on the Hub; None for a model of one's own."""
    revision: str | None = None
    """The commit that the spec was written for, where it is known."""
    licence: str | None = None
    published: tuple[Published, ...] = ()
    safetensors: bool | None = None
    """Whether the repository has safetensors; None: not known."""
    notes: str | None = None
    head: Head
    input: Input
    labels: Annotated[tuple[LabelSpec, ...], Field(min_length=2)]
    max_length: Annotated[int, Field(ge=32)] = 512
    """The most tokens of an input. What is longer loses the end of its chunk."""
    chunk: Chunk | None = None
    """None: as much of the reference as ``max_length`` has room for."""
    chunks: Annotated[int | None, Field(ge=1)] = None
    """Chunks that a sentence is compared with: those that bear most on it (BM25). None: all."""
    context: Annotated[int, Field(ge=0)] = 0
    """Sentences of the answer before the judged one that are shown with it."""
    tokens: Literal["max", "mean"] = "max"
    """``token-classification``: how the probabilities of wrong tokens become that of their sentence."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        writes = self.head in ("sequence-to-sequence", "likelihood")
        if writes != all(each.token is not None for each in self.labels) or (
            not writes and any(each.token is not None for each in self.labels)
        ):
            raise ValueError(
                f"with the head {self.head} every label needs `token`"
                if writes
                else f"`token` does not go with the head {self.head}"
            )
        told = {each.label for each in self.labels}
        if not told & RIGHT or not told & WRONG:
            raise ValueError("`labels` must have no_hallucination and at least one label that means wrong")
        answer = self.head == "token-classification"
        if answer != self.input.uses("answer") or answer == self.input.uses("sentence"):
            raise ValueError(f"the input of the head {self.head} shows {{{'answer' if answer else 'sentence'}}}")
        if answer and self.input.pair != "{answer}":
            raise ValueError("with token-classification `pair` is '{answer}', for its tokens are classified")
        if answer and self.chunk is not None and self.chunk.unit == "words":
            raise ValueError("with token-classification `chunk` is in tokens, for it must fit beside the answer")
        if answer and Label.NO_FACT in told:
            raise ValueError("with token-classification no label is no_fact")
        return self

    @property
    def hash(self) -> str:
        """Of everything that decides how a model is asked and what its outputs mean."""
        decides = self.model_dump(mode="json", exclude=_FACTS)
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def knows_filler(self) -> bool:
        """Whether the model has a class for sentences without a fact."""
        return any(each.label is Label.NO_FACT for each in self.labels)


_FACTS = {"model", "revision", "licence", "published", "safetensors", "notes"}


def presets() -> dict[str, ClassifierSpec]:
    """The specs that come with maskdpo, by the exact id of their model."""
    found = (_checked(read_yaml(Path(str(file))), file) for file in sorted(_preset_files(), key=str))
    return {spec.model: spec for spec in found if spec.model is not None}


def load_spec(model: str, given: str | Path | None = None) -> tuple[str, ClassifierSpec]:
    """The spec of a model, and the name of the spec.

    Args:
        model: an id on the Hub, or a folder.
        given: a YAML file, or the id of a preset: for a model that is a copy of it.

    Returns:
        The spec that is given, else that of the folder of the model (``classifier.yaml``), else the preset of this id,
        else the ``classifier.yaml`` of the model on the Hub.

    Raises:
        UserError: there is none. The message says how to write one.
    """
    known = presets()
    if given is not None:
        if str(given) in known:
            return str(given), known[str(given)]
        return Path(given).stem, read_spec(Path(given))
    file = Path(model).expanduser() / SPEC_FILE
    if file.is_file():
        return SPEC_FILE, read_spec(file)
    if model in known:
        return model, known[model]
    if (on_hub := _from_hub(model)) is not None:
        return SPEC_FILE, read_spec(on_hub)
    if "/" not in model and not Path(model).exists():  # ids on the Hub have an owner
        raise UserError(f"{model}: there is no such folder, and no preset has this id ({', '.join(known)})")
    raise UserError(f"{model}: no preset has this id, and there is no {SPEC_FILE} beside it. {_how_to(known)}")


def _from_hub(model: str) -> Path | None:
    """The file of a model on the Hub, or None: there is no such file or model, or no connection."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        return None
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(model, SPEC_FILE))
    except (ModuleNotFoundError, OSError, ValueError):
        return None


def read_spec(file: Path) -> ClassifierSpec:
    """The spec in a YAML file.

    Raises:
        InputError: there is no such file, or it is no spec.
    """
    return _checked(read_yaml(file), file)


def write_spec(spec: ClassifierSpec, folder: Path) -> None:
    """Make the folder of a model a judge: ``classifier.yaml``, without what is at its default."""
    import yaml

    values = spec.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)
    (folder / SPEC_FILE).write_text(text, encoding="utf-8")


def _preset_files() -> list[Traversable]:
    folder = files("maskdpo.classifier") / "presets"
    return [file for file in folder.iterdir() if file.name.endswith(".yaml")]


def _checked(values: dict[Any, Any], file: object) -> ClassifierSpec:
    try:
        return ClassifierSpec.model_validate(values)
    except ValidationError as error:
        field, message = first_problem(error)
        raise InputError(message, path=file, field=field) from None


def _how_to(known: dict[str, ClassifierSpec]) -> str:
    return (
        "Say how the model is asked in a file, and name it with `--judge-option spec=FILE` (docs/classifiers.md):\n"
        "  head: sequence-classification\n"
        "  input: {text: '{reference}', pair: '{sentence}'}\n"
        "  labels: [{name: entailment, label: no_hallucination}, {name: contradiction, label: contradictory}]\n"
        f"Presets: {', '.join(known)}"
    )
