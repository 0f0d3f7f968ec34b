"""Judge protocols: folders of Jinja templates that say how an LLM judge is asked and what its words mean."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskdpo.annotate.neutral import neutralise
from maskdpo.errors import InputError, UserError
from maskdpo.schemas import Label, Message
from maskdpo.schemas.language import language_tag
from maskdpo.text.language import UNKNOWN, language_name

NAMES = ("reference", "question", "answer", "sentence", "sentences", "replies", "language")
"""The variables of templates. ``language`` is the language of the answer in English words; ``sentences`` is a list of
``{id, text}`` where one call judges several sentences; ``replies`` are the earlier replies of the judge, by template.
"""

LANGUAGE_LINE = "The answer is in {language}.\n\n"
"""Stands before a question in another language than the answer's, unless a template names ``language`` itself."""

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
        """The language to ask in about an answer in ``wanted``; the same for answers that are asked about in one way.

        Templates for ``zh`` serve ``zh-Hant`` too. Where there are none, the wanted language stays: the first templates
        (the English ones, where the protocol has them) are used then, and the language is named to the judge.
        """
        named = "language" in self.uses
        if not named and wanted == UNKNOWN:
            return next(iter(self.templates))
        return wanted if named else self._written_in(wanted) or wanted

    def _written_in(self, language: str) -> str | None:
        """The templates' language that serves a language, if there is one."""
        parts = language.split("-")
        tags = ("-".join(parts[:length]) for length in range(len(parts), 0, -1))
        return next((tag for tag in tags if tag in self.templates), None)

    def opening(self, language: str, texts: Mapping[str, Any], turn: int = 0) -> list[Message]:
        """The system message, where the protocol has one, and the question of the turn."""
        system = self._template(language, "system")
        question = self.question(language, turn, texts)
        unnamed = not (self.settings.raw or "language" in self.uses)
        if unnamed and language != UNKNOWN and self._written_in(language) is None:
            line = LANGUAGE_LINE.format(language=language_name(language))
            question = Message(role="user", content=line + question.content)
        start = [Message(role="system", content=_rendered(system, language, texts))] if system else []
        return [*start, question]

    def question(self, language: str, turn: int, texts: Mapping[str, Any]) -> Message:
        template = self._template(language, self.turns[turn].template)
        assert template is not None  # ``load_protocol`` has read it
        return Message(role="user", content=_rendered(template, language, texts))

    def _template(self, language: str, name: str) -> Template | None:
        return self.templates[self._written_in(language) or next(iter(self.templates))].get(name)


def _rendered(template: Template, language: str, texts: Mapping[str, Any]) -> str:
    return template.render(texts, language=language_name(language))


def load_protocol(name: str) -> Protocol:
    """A built-in protocol by name, or a folder that holds ``protocol.yaml`` and a folder of templates per language.

    A folder's name is a language tag: ``en``, ``zh``, ``pt-BR``.

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
    templates = {language: loader.load(folder / language) for language in _languages(folder)}
    if not templates:
        raise UserError(f"{folder}: no templates: it needs a folder such as en or zh with the turns' templates")
    for language in [language for language, loaded in templates.items() if settings.raw and "system" in loaded]:
        raise InputError(
            "does not go with `raw`, where the template of the turn is all that the model reads: write its text there",
            path=folder / language / "system.j2",
        )
    return Protocol(folder.name, digest.hexdigest()[:12], settings, templates, frozenset(loader.uses))


def _languages(folder: Path) -> list[str]:
    """The folders of templates, English first: it serves the languages that have none."""
    found = [
        inner.name for inner in folder.iterdir() if inner.is_dir() and _is_tag(inner.name) and any(inner.glob("*.j2"))
    ]
    return sorted(found, key=lambda language: (language != "en", language))


def _is_tag(name: str) -> bool:
    try:
        return language_tag(name) == name
    except ValueError:
        return False


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
