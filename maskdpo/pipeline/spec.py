"""The file of a pipeline, and the stages that it names, with the files that they hand to each other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from maskdpo.errors import InputError
from maskdpo.io import open_input
from maskdpo.pipeline.settings import Command, check_section, command_line, first_error, full_arguments, option_name
from maskdpo.public import line_without_secrets, without_secrets
from maskdpo.run_record import sha256_of

Section = Annotated[dict[str, Any] | None, BeforeValidator(lambda value: {} if value is None else value)]
"""Options of a stage; an empty section runs it with its defaults, one that is not there leaves the stage out."""


class PipelineFile(BaseModel):
    """What a file may say. Paths are relative to the folder in which the command runs, as on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out: Path
    """The folder of all outputs."""
    prompts: Path
    heldout: Path | None = None
    """Prompts that are not trained on: the model answers them before and after the training."""
    model: str | None = None
    """The model to sample and to train."""
    sample: Section = None
    annotate: Section = None
    build_pairs: Section = None
    train: Section = None
    sample_before: Section = None
    """Of the held-out stages a section names only what differs from ``sample`` or ``annotate``."""
    annotate_before: Section = None
    sample_after: Section = None
    annotate_after: Section = None
    evaluate: Section = None
    report: Section = None


@dataclass(frozen=True)
class Stage:
    """One call of one command."""

    name: str
    command: str
    call: Command
    given: dict[str, Any]
    """Its arguments, less those that stand at the command's default."""
    out: Path | None
    """What it makes; None where it only prints."""

    @property
    def arguments(self) -> dict[str, Any]:
        return full_arguments(self.call, self.given)

    @property
    def line(self) -> str:
        """The command, as it is shown and recorded: without passwords."""
        return line_without_secrets(command_line(self.command, self.call, self.given))

    @property
    def plain(self) -> dict[str, Any]:
        """The given arguments as JSON values, without passwords, as they are recorded and compared."""
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in self.given.items()}
        if (settings := self.given.get("config")) and settings.is_file():  # what it says counts, not only its name
            plain["config"] = f"{settings} (sha256 {sha256_of(settings)[:12]})"
        return {key: without_secrets(value) for key, value in plain.items()}


class _Wired(NamedTuple):
    """What the pipeline says about a stage, before its command is known."""

    name: str
    command: str
    section: dict[str, Any]
    fixed: dict[str, Any]
    """Arguments that a section must not set: who reads whose output."""


def load_pipeline(file: Path, commands: Mapping[str, Command]) -> list[Stage]:
    """The stages of a file, in their order, with all options checked.

    Raises:
        InputError: no valid YAML, an unknown key (with the nearest known one), a bad or missing value.
    """
    try:
        values = _normal(_load_yaml(file), file)
    except RecursionError:
        raise InputError("is nested too deeply, or an anchor contains itself", path=file) from None
    try:
        spec = PipelineFile(**values)
    except ValidationError as error:
        raise first_error(error, file, PipelineFile.model_fields) from None
    stages = [_stage(wired, commands[wired.command], file) for wired in _wire(spec)]
    if not stages:
        raise InputError("names no stage, such as 'sample:'", path=file)
    return stages


def _stage(wired: _Wired, call: Command, file: Path) -> Stage:
    for key in sorted({*wired.fixed, "restart"} & wired.section.keys()):
        hint = "use --from" if key == "restart" else "the pipeline sets it"
        raise InputError(f"cannot be set here: {hint}", path=file, field=f"{wired.name}.{option_name(key)}")
    given = check_section(wired.name, wired.section | wired.fixed, call, file)
    return Stage(wired.name, wired.command, call, given, given.get("out"))


def _wire(spec: PipelineFile) -> Iterator[_Wired]:
    """All stages that the file names. A held-out stage takes the options of its elder sister, and its own on top."""
    out, model = spec.out, {"model": spec.model} if spec.model else {}
    responses, annotations, pairs, trained = (
        out / name for name in ("responses.jsonl", "annotations.jsonl", "pairs.jsonl", "model")
    )
    if spec.sample is not None:
        yield _Wired("sample", "sample", model | spec.sample, {"prompts": spec.prompts, "out": responses})
    if spec.annotate is not None:
        files = {"prompts": spec.prompts, "responses": responses, "out": annotations}
        yield _Wired("annotate", "annotate", spec.annotate, files)
    if spec.build_pairs is not None:
        files = {"prompts": spec.prompts, "annotations": annotations, "out": pairs}
        yield _Wired("build-pairs", "build-pairs", spec.build_pairs, files)
    if spec.train is not None:
        yield _Wired("train", "train", model | spec.train, {"pairs": pairs, "out": trained})
    if spec.heldout:
        yield from _held_out(spec, "before", spec.heldout, model, {})
        if spec.train is not None:
            yield from _held_out(spec, "after", spec.heldout, {}, {"model": str(trained)})
    compared: dict[str, Any] = {"annotations": annotations, "prompts": spec.prompts}
    if spec.heldout:
        compared = {"annotations": out / "before.annotations.jsonl", "prompts": spec.heldout}
        if spec.train is not None:
            compared["compare"] = out / "after.annotations.jsonl"
    if spec.evaluate is not None:
        yield _Wired("evaluate", "evaluate", {"json": out / "evaluate.json"} | spec.evaluate, compared)
    if spec.report is not None:
        yield _Wired("report", "report", spec.report, compared | {"out": out / "report.html"})


def _held_out(
    spec: PipelineFile, when: str, prompts: Path, model: dict[str, Any], fixed: dict[str, Any]
) -> Iterator[_Wired]:
    responses, annotations = (spec.out / f"{when}.{kind}.jsonl" for kind in ("responses", "annotations"))
    base = {key: value for key, value in (spec.sample or {}).items() if key not in fixed}
    own = getattr(spec, f"sample_{when}") or {}
    files = {"prompts": prompts, "out": responses, **fixed}
    yield _Wired(f"sample-{when}", "sample", model | base | own, files)
    own = getattr(spec, f"annotate_{when}") or {}
    files = {"prompts": prompts, "responses": responses, "out": annotations}
    yield _Wired(f"annotate-{when}", "annotate", (spec.annotate or {}) | own, files)


def _normal(values: dict[Any, Any], file: Path, section: str = "") -> dict[str, Any]:
    """Keys with ``_``, at the top and in the sections: a file may spell them either way, but once."""
    normal: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        where = f"{section}.{option_name(name)}" if section else option_name(name)
        if name in normal:
            raise InputError("is there twice, with - and with _", path=file, field=where)
        normal[name] = _normal(value, file, where) if isinstance(value, dict) else value
    return normal


class _Loader(yaml.SafeLoader):
    """Refuses what YAML forbids but PyYAML lets pass: a key that is there twice, of which it would take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key))
        return node


def _load_yaml(file: Path) -> dict[Any, Any]:
    with open_input(file) as handle:
        try:
            values = yaml.load(handle, _Loader)
        except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
            # all but the first: what PyYAML stumbles over in a value, such as the 32nd of a month
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else None
            raise InputError(f"not valid YAML: {getattr(error, 'problem', error)}", path=file, line=line) from None
    if not isinstance(values, dict):
        raise InputError("must be a mapping with 'prompts', 'out' and a section for every stage", path=file)
    return values
