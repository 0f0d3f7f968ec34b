"""Which stages a file names, in their order, and the files that they hand to each other."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from maskdpo.backends.settings import unused_by
from maskdpo.io.sources import GENERAL
from maskdpo.pipeline.file import PipelineFile, option_of

Options = dict[str, Any]

GENERAL_SAMPLING: Options = {"n": 1, "temperature": 1.0, "top_p": 1.0, "max_tokens": 128, "stop": [], "limit": None}
"""How answers to general prompts are sampled, whatever ``sample`` says."""

OF_ONE_ROUND = frozenset({"model", "push"})
"""Options of a section, or of its file, that count for one round only: in others the pipeline sets them."""


class Wired(NamedTuple):
    """What the pipeline says about a stage, before its command is known."""

    name: str
    command: str
    section: Options
    fixed: Options
    """Arguments that a section must not set: who reads whose output."""


class _Given(NamedTuple):
    """What the first round makes for all rounds."""

    people: Options
    """Gold labels."""
    rule: Options
    """A calibration."""


class _Training(NamedTuple):
    end: str
    """What the names of its stages and files end in."""
    section: Options
    out: Path


def wire(spec: PipelineFile) -> Iterator[Wired]:
    """All stages of a file. A held-out stage takes the options of ``sample`` or ``annotate``, and its own on top."""
    out = spec.out
    given = _Given(
        people={} if spec.gold is None else {"gold": out / "gold.jsonl"},
        rule={} if spec.calibrate is None else {"calibration": out / "calibration.json"},
    )
    trained, held_out = [], list[Wired]()
    for number in range(1, spec.rounds + 1):
        yield from _round(spec, number, given)
        trainings = list(_trainings(spec, number))
        yield from (_train(spec, training, number) for training in trainings)
        trained += trainings
        if spec.heldout:
            stages = _held_out(spec, "before", given.rule) if number == 1 else []
            stages += chain.from_iterable(_held_out(spec, "after", given.rule, each) for each in trainings)
            judged_later = [stage for stage in stages if spec.ground is not None and stage.command == "annotate"]
            held_out += stages
            yield from (stage for stage in stages if stage not in judged_later)
        if spec.side_effects is not None:
            yield from [_sample_general(spec, None)] if number == 1 else []
            yield from chain.from_iterable(_side_effects(spec, each) for each in trainings)
    if spec.heldout and spec.ground is not None:
        yield from _grounded_together(held_out, spec)
    yield from _results(spec, trained)


def _end(number: int) -> str:
    """What the names of a round's stages and files end in."""
    return "" if number == 1 else f"-{number}"


def _model(spec: PipelineFile) -> Options:
    return {"model": spec.model} if spec.model else {}


def _begins_with(spec: PipelineFile, number: int) -> Options:
    """The model that a round samples from and trains, where it is not the first model."""
    return {} if number == 1 else {"model": str(spec.out / f"model{_end(number - 1)}")}


def _prompts(spec: PipelineFile, number: int) -> Path:
    """The prompts with the references that the answers of a round are judged against."""
    return spec.prompts if spec.ground is None else spec.out / f"prompts{_end(number)}.jsonl"


def _annotations(spec: PipelineFile, number: int) -> Path:
    """The labels that the pairs of a round are built from."""
    return spec.out / f"{'annotations' if spec.calibrate is None else 'relabelled'}{_end(number)}.jsonl"


def _round(spec: PipelineFile, number: int, given: _Given) -> Iterator[Wired]:
    """From prompts to pairs."""
    out, end, first = spec.out, _end(number), number == 1
    prompts, responses, judged = _prompts(spec, number), out / f"responses{end}.jsonl", out / f"annotations{end}.jsonl"
    if spec.sample is not None:
        fixed = {"prompts": spec.prompts, "out": responses, **_begins_with(spec, number)}
        if spec.round_prompts == "split":
            fixed["shard"] = f"{number}/{spec.rounds}"
        section = _model(spec) | spec.sample if first else _sample_later(spec, number)
        yield Wired(f"sample{end}", "sample", section, fixed)
    if spec.ground is not None:
        files = {"prompts": spec.prompts, "responses": (responses,), "out": prompts}
        yield Wired(f"ground{end}", "ground", spec.ground, files)
    if spec.annotate is not None:
        files = {"prompts": prompts, "responses": responses, "out": judged}
        yield Wired(f"annotate{end}", "annotate", spec.annotate, files)
    if first:
        yield from _people_and_rule(spec, given, judged)
    if spec.calibrate is not None:
        least = option_of(spec.annotate or {}, "min_confidence")
        under = {} if least is None else {"min_confidence": least}  # held-out answers are labelled under it too
        files = {"annotations": judged, "out": _annotations(spec, number), **given.rule}
        yield Wired(f"relabel{end}", "relabel", under, files)
    if spec.build_pairs is not None:
        files = {"prompts": prompts, "annotations": _annotations(spec, number), "out": out / f"pairs{end}.jsonl"}
        section = given.people | spec.build_pairs
        if not first:  # people have labelled answers of the first round
            section.pop("gold", None)
        yield Wired(f"build-pairs{end}", "build-pairs", section, files)


def _sample_later(spec: PipelineFile, number: int) -> Options:
    """How a round after the first samples: with a seed of its own. A seed of ``sample_later`` is that of round 2."""
    later = spec.sample_later or {}
    section = _changed(spec.sample or {}, later, {"model"})
    own = option_of(later, "seed")
    seed, rounds_before = (option_of(section, "seed") or 0, number - 1) if own is None else (own, number - 2)
    # what is no number is refused with all other options
    return section | {"seed": int(seed) + rounds_before if str(seed).isdecimal() else seed}


def _changed(section: Options, own: Options, fixed: set[str]) -> Options:
    """A section of ``sample`` with another one on top. What is for the backend of the first alone is left out where the
    second names another backend, and so is what the pipeline sets."""
    other = unused_by(str(own["backend"])) if "backend" in own else {}
    return {key: value for key, value in section.items() if key not in {*fixed, *other}} | own


def _people_and_rule(spec: PipelineFile, given: _Given, judged: Path) -> Iterator[Wired]:
    if spec.gold is not None:
        yield Wired("gold", "gold", spec.gold, {"out": given.people["gold"]})
    if spec.agree is not None:
        same = {name: files for name, files in (spec.gold or {}).items() if name == "decisions"}
        yield Wired("agree", "agree", {"json_file": spec.out / "agree.json"} | same | spec.agree, {})
    if spec.calibrate is not None:
        files = {"annotations": judged, "prompts": _prompts(spec, 1), "out": given.rule["calibration"]}
        yield Wired("calibrate", "calibrate", given.people | spec.calibrate, files)


def _trainings(spec: PipelineFile, number: int) -> Iterator[_Training]:
    """Those of a round, with their options."""
    if spec.train is None:
        return
    sections = {"": spec.train} | {f"-{name}": spec.train | (own or {}) for name, own in spec.also_train.items()}
    for name, section in sections.items():
        end = f"{_end(number)}{name}"
        yield _Training(end, section, spec.out / f"model{end}")


def _train(spec: PipelineFile, training: _Training, number: int) -> Wired:
    fixed = {"pairs": spec.out / f"pairs{_end(number)}.jsonl", "out": training.out, **_begins_with(spec, number)}
    fixed |= {"push": None} if number < spec.rounds else {}
    section = _model(spec) | training.section
    section = {key: value for key, value in section.items() if key not in fixed.keys() & OF_ONE_ROUND}
    return Wired(f"train{training.end}", "train", section, fixed)


def _held_out(spec: PipelineFile, when: str, rule: Options, training: _Training | None = None) -> list[Wired]:
    """The answers to held-out prompts and their labels.

    Args:
        rule: what ``annotate`` is told beyond the file.
        training: the one whose model answers; None: the first model.
    """
    end = training.end if training else ""
    responses, annotations = (spec.out / f"{when}{end}.{kind}.jsonl" for kind in ("responses", "annotations"))
    by = {"model": str(training.out)} if training else {}
    section = _changed(spec.sample or {}, getattr(spec, f"sample_{when}") or {}, set(by))
    files = {"prompts": spec.heldout, "out": responses, **by}
    sample = Wired(f"sample-{when}{end}", "sample", section if by else _model(spec) | section, files)
    section = (spec.annotate or {}) | (getattr(spec, f"annotate_{when}") or {})
    files = {"prompts": _held_out_prompts(spec), "responses": responses, "out": annotations, **rule}
    return [sample, Wired(f"annotate-{when}{end}", "annotate", section, files)]


def _held_out_prompts(spec: PipelineFile) -> Path | None:
    """Those with the references that held-out answers are judged against."""
    return spec.heldout if spec.ground is None else spec.out / "heldout.prompts.jsonl"


def _general(spec: PipelineFile, training: _Training | None) -> Path:
    return spec.out / f"general-{f'after{training.end}' if training else 'before'}.responses.jsonl"


def _sample_general(spec: PipelineFile, training: _Training | None) -> Wired:
    """Answers to general prompts: as the held-out ones are sampled, but for ``GENERAL_SAMPLING``."""
    when = f"after{training.end}" if training else "before"
    own = (spec.sample_after if training else spec.sample_before) or {}
    by = {"model": str(training.out)} if training else {}
    section = _changed(spec.sample or {}, own, set(by)) | GENERAL_SAMPLING
    section = _changed(section, spec.sample_general or {}, set())
    files = {"prompts": _general_prompts(spec), "out": _general(spec, training), **by}
    return Wired(f"sample-general-{when}", "sample", section if by else _model(spec) | section, files)


def _general_prompts(spec: PipelineFile) -> Any:
    return option_of(spec.side_effects or {}, "prompts") or GENERAL


def _side_effects(spec: PipelineFile, training: _Training) -> Iterator[Wired]:
    yield _sample_general(spec, training)
    files = {"before": _general(spec, None), "after": _general(spec, training)}
    files["out"] = _effects(spec, training)
    yield Wired(f"side-effects{training.end}", "side-effects", spec.side_effects or {}, files)


def _effects(spec: PipelineFile, training: _Training) -> Path:
    return spec.out / f"side-effects{training.end}.json"


def _grounded_together(stages: list[Wired], spec: PipelineFile) -> Iterator[Wired]:
    """References for held-out prompts: one set for all answers to a prompt, because labels by different references
    could not be compared. So nothing is judged before all answers are there."""
    answers = tuple(stage.fixed["out"] for stage in stages if stage.command == "sample")
    files = {"prompts": spec.heldout, "responses": answers, "out": _held_out_prompts(spec)}
    yield Wired("ground-heldout", "ground", spec.ground or {}, files)
    yield from (stage for stage in stages if stage.command == "annotate")


def _results(spec: PipelineFile, trained: list[_Training]) -> Iterator[Wired]:
    """What is for people and other tools."""
    out = spec.out
    afters = tuple(out / f"after{training.end}.annotations.jsonl" for training in trained)
    compared: Options = {"annotations": _annotations(spec, 1), "prompts": _prompts(spec, 1)}
    if spec.heldout:
        compared = {"annotations": out / "before.annotations.jsonl", "prompts": _held_out_prompts(spec)}
        compared |= {"compare": afters} if afters else {}
        if spec.rounds > 1:
            compared["labels"] = ("before", *(f"round {number}" for number in range(1, spec.rounds + 1)))
    if spec.side_effects is not None:
        compared |= {"side_effects": tuple(_effects(spec, training) for training in trained)}
    if spec.evaluate is not None:
        files = {"json_file": out / "evaluate.json"} | (
            {"plot": out / "evaluate.png"} if spec.rounds > 1 and spec.heldout else {}
        )
        yield Wired("evaluate", "evaluate", files | spec.evaluate, compared)
    if spec.report is not None:
        shown: tuple[Path, ...] = compared.get("compare", ())
        # rounds are shown on one page, trainings on the same pairs on a page each, beside the first of them if the
        # section has nothing that is for one compared file
        each = [""] if spec.rounds > 1 or not shown else [training.end for training in trained]
        named = any(option_of(spec.report, key) for key in ("label", "labels"))
        beside = [] if named or option_of(spec.report, "gold") else shown[:1]
        for end in each:
            one, section = dict(compared), spec.report
            if len(each) > 1:
                one["compare"] = tuple(dict.fromkeys([*beside, out / f"after{end}.annotations.jsonl"]))
                # "after" is the model of `train` on every page
                section = section if named or beside else section | {"labels": ("before", f"after{end}")}
            if len(each) > 1 and spec.side_effects is not None:
                one["side_effects"] = out / f"side-effects{end}.json"
            yield Wired(f"report{end}", "report", section, one | {"out": out / f"report{end}.html"})
    for number in range(1, spec.rounds + 1):
        end = _end(number)
        if spec.export is not None:
            files = {"file": out / f"pairs{end}.jsonl", "out": out / f"exported{end}.pairs.jsonl"}
            yield Wired(f"export{end}", "export", spec.export, files)
        if spec.export_annotations is not None:
            files = {"file": _annotations(spec, number), "out": out / f"exported{end}.annotations.json"}
            files |= {"prompts": _prompts(spec, number)}
            yield Wired(f"export-annotations{end}", "export", spec.export_annotations, files)
    if spec.push is not None:
        files = {"prompts": _prompts(spec, 1), "annotations": _annotations(spec, 1), "pairs": out / "pairs.jsonl"}
        yield Wired("push", "push", spec.push, files)
