"""The file of a pipeline, and the stages that it names, with the files that they hand to each other."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from maskdpo.backends.settings import unused_by
from maskdpo.errors import InputError, UserError
from maskdpo.io.yaml_file import read_yaml
from maskdpo.redact import line_without_secrets, without_secrets
from maskdpo.run_record import by_role
from maskdpo.settings import (
    Settings,
    command_line,
    input_error,
    named,
    of_model,
    settings_model,
    settings_of,
)

Command = Callable[[Any], None]
"""A function of one settings model."""

Section = Annotated[dict[str, Any] | None, BeforeValidator(lambda value: {} if value is None else value)]
"""Options of a stage; an empty section runs it with its defaults, one that is not there leaves the stage out."""


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
"""A name that can be part of a file name."""


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
    ground: Section = None
    """With ``corpus``. What is judged then has its references from there, the held-out answers too."""
    annotate: Section = None
    gold: Section = None
    """With ``decisions`` of people. The calibration and the pairs then know these labels."""
    agree: Section = None
    """How far the people behind ``gold`` agree."""
    calibrate: Section = None
    """With ``gold``, a file or the section above. The pairs are then built from relabelled annotations, and held-out
    answers are labelled so too."""
    build_pairs: Section = None
    train: Section = None
    also_train: Annotated[dict[Name, Section], BeforeValidator(lambda value: {} if value is None else value)] = {}
    """More trainings on the same pairs, by name: what differs from ``train``."""
    sample_before: Section = None
    """Of the held-out stages a section names only what differs from ``sample`` or ``annotate``."""
    annotate_before: Section = None
    sample_after: Section = None
    annotate_after: Section = None
    evaluate: Section = None
    report: Section = None
    export: Section = None
    """The pairs in another tool's format."""
    export_annotations: Section = None
    push: Section = None
    """Prompts, annotations and pairs as a dataset on the Hub."""


@dataclass(frozen=True)
class Stage:
    """One call of one command."""

    name: str
    command: str
    call: Command
    settings: Settings

    @property
    def out(self) -> Path | None:
        """What the stage makes; None where it only prints."""
        return getattr(self.settings, "out", None)

    @property
    def given(self) -> dict[str, Any]:
        """The settings that differ from their defaults, by the names that files give them."""
        given = self.settings.given()
        return {one.key: given[one.name] for one in settings_of(type(self.settings)) if one.name in given}

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that the stage is given, by the roles that records give them."""
        found: dict[str, Path] = {}
        for key, value in self.given.items():
            files = [value] if isinstance(value, Path) else value if isinstance(value, tuple) else []
            found |= by_role(key, [file for file in files if isinstance(file, Path)])
        return found

    @property
    def line(self) -> str:
        """The command, as it is shown and recorded: without passwords."""
        return line_without_secrets(command_line(self.command, self.settings))

    @property
    def plain(self) -> dict[str, Any]:
        """The given settings as JSON values, without passwords, as they are recorded and compared."""
        return dict(
            without_secrets(self.settings.model_dump(mode="json", by_alias=True, include=set(self.settings.given())))
        )


HINTS = {
    "restart": "use `start`",
    "dry_run": "use `maskdpo run --dry-run`",
    "shard": "a stage makes its whole output; `maskdpo merge` puts the outputs of shards where a pipeline finds them",
}
"""Settings that no section may have, and what to do instead."""


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
    values = named(read_yaml(file), file)
    for key, value in values.items():
        if key == "also_train" and isinstance(value, dict):  # by names, which stay as they are
            sections = value.items()
            values[key] = {own: named(of, file, f"{key}.{own}") if isinstance(of, dict) else of for own, of in sections}
        elif isinstance(value, dict):
            values[key] = named(value, file, key)
    if not values:
        raise InputError("must be a mapping with 'prompts', 'out' and a section for every stage", path=file)
    try:
        spec = PipelineFile(**values)
    except ValidationError as error:
        raise input_error(error, PipelineFile, file, "") from None
    if spec.also_train and spec.train is None:
        raise InputError("goes with 'train', whose options its trainings take", path=file, field="also-train")
    stages = [_stage(wired, commands[wired.command], file) for wired in _wire(spec)]
    if not stages:
        raise InputError("names no stage, such as 'sample:'", path=file)
    return stages


def _stage(wired: _Wired, call: Command, file: Path) -> Stage:
    model = settings_model(call)
    section = of_model(wired.section, model, file, wired.name)
    more = Path(str(section.pop("config"))) if section.get("config") is not None else None
    apart = of_model(named(read_yaml(more), more), model, more) if more is not None else {}
    barred = {*wired.fixed, *HINTS} - ({"dry_run"} if wired.command == "push" else set())  # it takes a folder there
    for key in sorted(barred & (section.keys() | apart.keys())):
        hint = "the pipeline sets it" if key in wired.fixed else HINTS[key]
        where, field = (file, f"{wired.name}.{key.replace('_', '-')}") if key in section else (more, key)
        raise InputError(f"cannot be set here: {hint}", path=where, field=field)
    try:
        return Stage(wired.name, wired.command, call, model.model_validate(apart | section | wired.fixed))
    except ValidationError as error:
        key = str((error.errors(include_url=False)[0]["loc"] or ("",))[0])
        if more is not None and key in apart and key not in section:
            raise input_error(error, model, more) from None
        raise input_error(error, model, file, wired.name) from None
    except UserError as error:  # of a plug-in that cannot be imported
        raise InputError(str(error), path=file, field=wired.name) from None


def _wire(spec: PipelineFile) -> Iterator[_Wired]:
    """All stages that the file names. A held-out stage takes the options of ``sample`` or ``annotate``, and its own on
    top."""
    out, model = spec.out, {"model": spec.model} if spec.model else {}
    responses, annotations, pairs, trained = (
        out / name for name in ("responses.jsonl", "annotations.jsonl", "pairs.jsonl", "model")
    )
    if spec.sample is not None:
        yield _Wired("sample", "sample", model | spec.sample, {"prompts": spec.prompts, "out": responses})
    prompts, heldout = spec.prompts, spec.heldout
    if spec.ground is not None:
        prompts, heldout = out / "prompts.jsonl", out / "heldout.prompts.jsonl"
        files = {"prompts": spec.prompts, "responses": (responses,), "out": prompts}
        yield _Wired("ground", "ground", spec.ground, files)
    if spec.annotate is not None:
        files = {"prompts": prompts, "responses": responses, "out": annotations}
        yield _Wired("annotate", "annotate", spec.annotate, files)
    people: dict[str, Any] = {}
    if spec.gold is not None:
        people = {"gold": out / "gold.jsonl"}
        yield _Wired("gold", "gold", spec.gold, {"out": people["gold"]})
    if spec.agree is not None:
        same = {name: files for name, files in (spec.gold or {}).items() if name == "decisions"}
        yield _Wired("agree", "agree", {"json_file": out / "agree.json"} | same | spec.agree, {})
    rule: dict[str, Any] = {}
    if spec.calibrate is not None:
        rule = {"calibration": out / "calibration.json"}
        files = {"annotations": annotations, "prompts": prompts, "out": rule["calibration"]}
        yield _Wired("calibrate", "calibrate", people | spec.calibrate, files)
        raw, annotations = annotations, out / "relabelled.jsonl"
        least = _option(spec.annotate or {}, "min_confidence")
        under = {} if least is None else {"min_confidence": least}  # held-out answers are labelled under it too
        yield _Wired("relabel", "relabel", under, {"annotations": raw, "out": annotations, **rule})
    if spec.build_pairs is not None:
        files = {"prompts": prompts, "annotations": annotations, "out": pairs}
        yield _Wired("build-pairs", "build-pairs", people | spec.build_pairs, files)
    if spec.train is not None:
        for name, section in _trainings(spec):
            made = {"pairs": pairs, "out": trained.with_name(trained.name + name)}
            yield _Wired(f"train{name}", "train", model | section, made)
    if spec.heldout:
        stages = _held_out(spec, "before", heldout, model, {}, rule)
        for name, _ in _trainings(spec):
            by = {"model": str(trained.with_name(trained.name + name))}
            stages += _held_out(spec, "after", heldout, {}, by, rule, name)
        yield from stages if spec.ground is None else _grounded_together(stages, spec, heldout)
    compared: dict[str, Any] = {"annotations": annotations, "prompts": prompts}
    if spec.heldout:
        compared = {"annotations": out / "before.annotations.jsonl", "prompts": heldout}
        afters = tuple(out / f"after{name}.annotations.jsonl" for name, _ in _trainings(spec))
        compared |= {"compare": afters} if afters else {}
    if spec.evaluate is not None:
        yield _Wired("evaluate", "evaluate", {"json_file": out / "evaluate.json"} | spec.evaluate, compared)
    if spec.report is not None:
        for (name, _), after in zip(_trainings(spec) or [("", {})], compared.get("compare", (None,)), strict=False):
            one = {**compared, "compare": after} if after else compared
            yield _Wired(f"report{name}", "report", spec.report, one | {"out": out / f"report{name}.html"})
    if spec.export is not None:
        yield _Wired("export", "export", spec.export, {"file": pairs, "out": out / "exported.pairs.jsonl"})
    if spec.export_annotations is not None:
        files = {"file": annotations, "prompts": prompts, "out": out / "exported.annotations.json"}
        yield _Wired("export-annotations", "export", spec.export_annotations, files)
    if spec.push is not None:
        files = {"prompts": prompts, "annotations": annotations, "pairs": pairs}
        yield _Wired("push", "push", spec.push, files)


def _trainings(spec: PipelineFile) -> list[tuple[str, dict[str, Any]]]:
    """All trainings: what their names append to those of stages and files, and their options."""
    if spec.train is None:
        return []
    return [("", spec.train), *((f"-{name}", spec.train | (own or {})) for name, own in spec.also_train.items())]


def _option(section: dict[str, Any], key: str) -> Any:
    """An option of a section, or of the file that it names as its ``config``."""
    if key in section or section.get("config") is None:
        return section.get(key)
    file = Path(str(section["config"]))
    return named(read_yaml(file), file).get(key)


def _held_out(
    spec: PipelineFile,
    when: str,
    judged: Path | None,
    model: dict[str, Any],
    fixed: dict[str, Any],
    rule: dict[str, Any],
    name: str = "",
) -> list[_Wired]:
    """The answers to held-out prompts and their labels.

    Args:
        judged: the prompts with the references that the answers are judged against.
        fixed: what ``sample`` is told beyond the file.
        rule: the same for ``annotate``.
        name: what the names of stages and files end in: that of a training.
    """
    responses, annotations = (spec.out / f"{when}{name}.{kind}.jsonl" for kind in ("responses", "annotations"))
    own = getattr(spec, f"sample_{when}") or {}
    other = unused_by(str(own["backend"])) if "backend" in own else {}
    base = {key: value for key, value in (spec.sample or {}).items() if key not in {*fixed, *other}}
    files = {"prompts": spec.heldout, "out": responses, **fixed}
    sample = _Wired(f"sample-{when}{name}", "sample", model | base | own, files)
    own = getattr(spec, f"annotate_{when}") or {}
    files = {"prompts": judged, "responses": responses, "out": annotations, **rule}
    return [sample, _Wired(f"annotate-{when}{name}", "annotate", (spec.annotate or {}) | own, files)]


def _grounded_together(stages: list[_Wired], spec: PipelineFile, prompts: Path | None) -> Iterator[_Wired]:
    """The stages on held-out prompts, with references for them: one for all answers to a prompt, because labels by
    different references could not be compared. So nothing is judged before all of them are there."""
    sampled = [stage for stage in stages if stage.command == "sample"]
    yield from sampled
    answers = tuple(stage.fixed["out"] for stage in sampled)
    files = {"prompts": spec.heldout, "responses": answers, "out": prompts}
    yield _Wired("ground-heldout", "ground", spec.ground or {}, files)
    yield from (stage for stage in stages if stage.command != "sample")
