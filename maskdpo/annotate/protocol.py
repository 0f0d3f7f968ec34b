"""Judge protocols: folders of Jinja templates that say how an LLM judge is asked and what its words mean."""

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import yaml
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maskdpo.errors import InputError, UserError
from maskdpo.schemas import Label, Message

LANGUAGES = ("en", "zh")


class ProtocolSettings(BaseModel):
    """``protocol.yaml``."""

    model_config = ConfigDict(extra="forbid")

    choices: Annotated[dict[str, Label], Field(min_length=2)]
    """The words that the judge may reply with, and the label that each stands for."""


@dataclass(frozen=True)
class Protocol:
    """A loaded protocol."""

    name: str
    hash: str
    """Of all its files: labels given under another wording are another judge's."""
    choices: dict[str, Label]
    templates: dict[str, tuple[Template, Template]]
    """By language: the system and the user template."""

    def messages(self, language: str, *, reference: str, question: str, answer: str, sentence: str) -> list[Message]:
        """The conversation that asks for a verdict on ``sentence``."""
        texts = {"reference": reference, "question": question, "answer": answer, "sentence": sentence}
        neutral = {name: neutralise(text) for name, text in texts.items()}
        system, user = self.templates[language]
        return [
            Message(role="system", content=system.render(neutral).strip()),
            Message(role="user", content=user.render(neutral).strip()),
        ]


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
            f"--protocol {name}: neither a built-in protocol ({', '.join(known)}) nor a folder with a protocol.yaml"
        )
    try:
        settings = ProtocolSettings.model_validate(yaml.safe_load(settings_file.read_text()))
    except (yaml.YAMLError, ValidationError) as error:
        raise InputError(f"not a valid protocol: {_one_line(error)}", path=settings_file) from None
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.suffix in {".yaml", ".j2"}):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes() + b"\0")
    templates = {language: _templates(folder / language) for language in LANGUAGES if (folder / language).is_dir()}
    if not templates:
        raise UserError(f"{folder}: no templates: it needs a folder en or zh with system.j2 and user.j2")
    return Protocol(folder.name, digest.hexdigest()[:12], settings.choices, templates)


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False)[0]
        if problem["loc"][-1:] == ("[key]",):
            return f"choices: {problem['input']!r} is no text; put yes, no and numbers in quotes"
        return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
    return str(error).replace("\n", " ")


def _templates(folder: Path) -> tuple[Template, Template]:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=False)
    found = []
    for name in ("system.j2", "user.j2"):
        try:
            found.append(environment.from_string((folder / name).read_text(encoding="utf-8")))
            found[-1].render(reference="", question="", answer="", sentence="")  # a name that is not given shows here
        except FileNotFoundError:
            raise InputError("the protocol lacks this template", path=folder / name) from None
        except TemplateError as error:
            raise InputError(f"not a valid template: {error}", path=folder / name) from None
    return found[0], found[1]


_DELIMITER = re.compile(r"<(?=\s*/?\s*(?:reference|question|answer|sentence)\b|\|)|(?<=\|)>", re.IGNORECASE)


def neutralise(text: str) -> str:
    """Judged text is untrusted: it must neither close our delimiters nor write a chat template's control tokens.

    The angle brackets of both are replaced by look-alikes; everything else stays.
    """
    return _DELIMITER.sub(lambda match: "‹" if match.group() == "<" else "›", text)
