"""Judge protocols: folders of Jinja templates that say how an LLM judge is asked and what its words mean."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskdpo.errors import InputError, UserError
from maskdpo.schemas import Label, Message

LANGUAGES = ("en", "zh")
NAMES = ("reference", "question", "answer", "sentence", "sentences", "replies")
"""The variables of templates. ``sentences`` is a list of ``{id, text}`` where one call judges several sentences;
``replies`` are the earlier replies of the judge, by the template of their turn.
"""

Meaning = Label | Literal["next"]
"""What a word of the judge stands for: a label, or ``next``, where the next turn decides."""


class Turn(BaseModel):
    """One question of the conversation with the judge."""

    model_config = ConfigDict(extra="forbid")

    template: str
    """``<template>.j2`` in the folder of each language."""
    words: Annotated[dict[str, Meaning], Field(min_length=1)]
    """The words that the judge may reply with, and what each stands for."""
    reply: Literal["word", "text"] = "word"
    """``word``: the reply is constrained to the words. ``text``: it is free, and is searched for one of them."""
    otherwise: Literal["next"] | None = None
    """For free text: the meaning of a reply that has none of the words. None: such a reply is a parse error."""
    evidence: bool = False
    """Keep this reply as the evidence for the verdict."""
    max_tokens: Annotated[int, Field(ge=1)] = 32

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.reply == "word" and (self.otherwise or len(self.words) < 2):
            raise ValueError("a turn with `reply: word` needs at least two words and must not have `otherwise`")
        return self


class PassageSettings(BaseModel):
    """The passages of a protocol with ``asks: passage``."""

    model_config = ConfigDict(extra="forbid")

    words: Annotated[int, Field(ge=20)] = 150
    """The length of a passage, of six bytes a word; a passage ends where a sentence ends."""
    most: Annotated[int, Field(ge=1)] = 3
    """Passages per sentence: those that bear most on the sentence."""


class ProtocolSettings(BaseModel):
    """``protocol.yaml``."""

    model_config = ConfigDict(extra="forbid")

    asks: Literal["sentence", "answer", "passage"] = "sentence"
    """``sentence``: one conversation per sentence. ``answer``: one call judges all sentences of an answer. ``passage``:
    every turn is a question of its own. The last turn is asked about each passage, and the passage that supports the
    sentence most counts; the turns before it are asked about the sentence alone."""
    raw: bool = False
    """The template is the whole text that the model continues, with the control tokens of its chat template: for judges
    whose chat template takes more than messages."""
    passages: PassageSettings | None = None
    turns: Annotated[list[Turn], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.asks == "answer" and (len(self.turns) > 1 or self.turns[0].reply != "word"):
            raise ValueError("a protocol with `asks: answer` must have exactly one turn, with `reply: word`")
        if self.asks == "passage" and any(turn.reply != "word" for turn in self.turns):
            raise ValueError("with `asks: passage` every turn must have `reply: word`")
        if self.asks == "passage" and Label.NO_HALLUCINATION not in self.turns[-1].words.values():
            raise ValueError("with `asks: passage` the last turn needs a word for no_hallucination")
        if self.passages and self.asks != "passage":
            raise ValueError("`passages` goes with `asks: passage`")
        if self.raw and len(self.turns) > 1:
            raise ValueError("a protocol with `raw` must have exactly one turn")
        last = self.turns[-1]
        if "next" in last.words.values() or last.otherwise:
            raise ValueError(
                "no turn follows the last one, so all words of the last turn must stand for labels, not for `next`"
            )
        return self


@dataclass(frozen=True)
class Protocol:
    """A loaded protocol."""

    name: str
    hash: str
    """Hash of all files of the protocol: labels that were given under another wording are of another judge."""
    settings: ProtocolSettings
    templates: dict[str, dict[str, Template]]
    """By language, then by name; ``system`` may be absent."""
    uses: frozenset[str]
    """The ``NAMES`` that some template reads: what a verdict can depend on."""

    @property
    def turns(self) -> list[Turn]:
        return self.settings.turns

    @property
    def passages(self) -> PassageSettings | None:
        """None where a question sees the whole reference."""
        return (self.settings.passages or PassageSettings()) if self.settings.asks == "passage" else None

    @property
    def labels(self) -> frozenset[Label]:
        """The labels that the protocol can give."""
        return frozenset(m for turn in self.turns for m in turn.words.values() if m != "next")

    def neutral(self, text: str) -> str:
        """Judged text without anything that reads as markup or as a verdict (``neutralise``)."""
        return neutralise(text, [word for turn in self.turns for word in turn.words])

    def language(self, wanted: str) -> str:
        """The language to ask in: the wanted one, if the protocol has it, else its first one."""
        return wanted if wanted in self.templates else next(iter(self.templates))

    def opening(self, language: str, texts: Mapping[str, Any], turn: int = 0) -> list[Message]:
        """The system message, where the protocol has one, and the question of the turn."""
        system = self.templates[language].get("system")
        start = [Message(role="system", content=system.render(texts))] if system else []
        return [*start, self.question(language, turn, texts)]

    def question(self, language: str, turn: int, texts: Mapping[str, Any]) -> Message:
        template = self.templates[language][self.turns[turn].template]
        return Message(role="user", content=template.render(texts))


def load_protocol(name: str) -> Protocol:
    """A built-in protocol by name, or a folder that holds ``protocol.yaml`` and ``en/``, ``zh/`` with templates.

    Raises:
        UserError: no such protocol, or one of its files is missing or wrong.
    """
    built_in = Path(str(files("maskdpo.annotate") / "protocols"))
    known = sorted(folder.name for folder in built_in.iterdir() if (folder / "protocol.yaml").is_file())
    folder = built_in / name if name in known else Path(name)
    settings_file = folder / "protocol.yaml"
    if not settings_file.is_file():
        raise UserError(
            f"`protocol` {name}: neither a built-in protocol ({', '.join(known)}) nor a folder with a protocol.yaml"
        )
    try:
        settings = ProtocolSettings.model_validate(yaml.safe_load(settings_file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"not a valid protocol: {_one_line(error)}", path=settings_file) from None
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.suffix in {".yaml", ".j2"}):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes() + b"\0")
    loader = _Loader(settings)
    templates = {language: loader.load(folder / language) for language in LANGUAGES if (folder / language).is_dir()}
    if not templates:
        raise UserError(f"{folder}: no templates: it needs a folder en or zh with the turns' templates")
    for language in [language for language, loaded in templates.items() if settings.raw and "system" in loaded]:
        raise InputError(
            "does not go with `raw`, where the template of the turn is all that the model reads: write its text there",
            path=folder / language / "system.j2",
        )
    return Protocol(folder.name, digest.hexdigest()[:12], settings, templates, frozenset(loader.uses))


class _Loader:
    """Reads templates, and records which variables they use."""

    def __init__(self, settings: ProtocolSettings) -> None:
        self._environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=False)
        self._turns = [turn.template for turn in settings.turns]
        self.uses: set[str] = set()

    def load(self, folder: Path) -> dict[str, Template]:
        names = [*(["system"] if (folder / "system.j2").is_file() else []), *self._turns]
        return {name: self._template(folder / f"{name}.j2") for name in names}

    def _template(self, file: Path) -> Template:
        try:
            source = file.read_text(encoding="utf-8")
            template = self._environment.from_string(source)
            used = meta.find_undeclared_variables(self._environment.parse(source))
            # an error in a template shows here, not in the middle of a run
            shown = dict.fromkeys(NAMES, "x") | {"sentences": [{"id": "1", "text": "x"}]}
            template.render(shown | {"replies": dict.fromkeys(self._turns, "x")})
        except FileNotFoundError:
            raise InputError("this template is missing: protocol.yaml names it", path=file) from None
        except (TemplateError, UnicodeDecodeError, TypeError, ArithmeticError) as error:
            raise InputError(f"not a valid template: {error}", path=file) from None
        if unknown := used - set(NAMES):
            known = ", ".join(NAMES)
            raise InputError(f"not a valid template: {min(unknown)!r} is not given; known: {known}", path=file)
        self.uses |= used
        return template


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False)[0]
        if problem["loc"][-1:] == ("[key]",):
            return f"words: {problem['input']!r} is no text; put yes, no and numbers in quotes"
        # a word that is neither a label nor "next" fails as both: the labels are the better hint
        where = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("lax", "literal")))
        return f"{where}: {problem['msg'].removeprefix('Value error, ')}"
    return str(error).replace("\n", " ")


_DELIMITER_NAMES = "reference|question|answer|sentences?"
_CONTROL_TOKENS = (
    "start_of_turn|end_of_turn|bos|eos|s|sop|eop|eos_token|im_start|im_end|unused_token_\\d+|think|system_prompt|sys"
)
_GAP = r"[\s\u200b-\u200f\u2060\ufeff]*"
_DELIMITER = re.compile(
    rf"<(?={_GAP}(?:/{_GAP})?(?:{_DELIMITER_NAMES})\b|/?(?:{_CONTROL_TOKENS})>|[|｜])|(?<=[|｜])>"
    rf"|\[(?=/?(?:INST|{_CONTROL_TOKENS})\])",
    re.IGNORECASE,
)
_LOOK_ALIKE = {"<": "‹", ">": "›", "[": "［"}


def neutralise(text: str, words: Iterable[str] = ()) -> str:
    """Replace brackets of judged text by look-alikes where the text could mislead the judge; everything else stays.

    Judged text is untrusted: it must neither close the delimiters of the prompt, nor write the control tokens of a chat
    template, nor state a verdict in the brackets of the protocol (``words``), which a judge might only repeat.
    """
    text = _DELIMITER.sub(lambda match: _LOOK_ALIKE[match.group()], text)
    for word in words:
        if word[0] == "<":
            text = re.sub(re.escape(word), lambda match: f"‹{match.group()[1:]}", text, flags=re.IGNORECASE)
    return text
