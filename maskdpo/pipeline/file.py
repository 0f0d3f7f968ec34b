"""What the file of a pipeline may say."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from maskdpo.io.yaml_file import read_yaml
from maskdpo.settings_reading import named

Section = Annotated[dict[str, Any] | None, BeforeValidator(lambda value: {} if value is None else value)]
"""Options of a stage; an empty section runs it with its defaults, one that is not there leaves the stage out."""


def _part_of_a_file_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", value):
        raise ValueError(
            f"{value!r} becomes part of file names: letters, digits, '-', '_' and '.', a letter or digit first"
        )
    return value


Name = Annotated[str, AfterValidator(_part_of_a_file_name)]


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
    rounds: Annotated[int, Field(ge=1, le=99)] = 1
    """How often to sample, judge, pair and train; a round after the first begins with the model of the one before."""
    round_prompts: Literal["same", "split"] = "same"
    """Whether every round asks all prompts, or a part of its own."""
    sample: Section = None
    sample_later: Section = None
    """Of the rounds after the first: what differs from ``sample``."""
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
    side_effects: Section = None
    """What each training changes in answers to general prompts."""
    sample_general: Section = None
    """Of these answers a section names only what differs from ``sample`` and ``GENERAL_SAMPLING``."""
    evaluate: Section = None
    report: Section = None
    export: Section = None
    """The pairs in another tool's format."""
    export_annotations: Section = None
    push: Section = None
    """Prompts, annotations and pairs as a dataset on the Hub."""


def option_of(section: dict[str, Any], key: str) -> Any:
    """An option of a section, or of the file that it names as its ``config``."""
    if key in section or section.get("config") is None:
        return section.get(key)
    file = Path(str(section["config"]))
    return named(read_yaml(file), file).get(key)


def misfits(spec: PipelineFile) -> Iterator[tuple[str, str]]:
    """Keys that do not go with the others, each with what is wrong."""
    if spec.also_train and spec.train is None:
        yield "also-train", "goes with 'train', whose options its trainings take"
    if spec.side_effects is not None and spec.train is None:
        yield "side-effects", "goes with 'train': it compares the trained model with the one before"
    if spec.sample_general is not None and spec.side_effects is None:
        yield "sample-general", "goes with 'side-effects', whose answers it samples"
    if spec.heldout and (spec.also_train or spec.rounds > 1):
        # of trainings on the same pairs, each has a page of its own
        for key, section in (("evaluate", spec.evaluate), ("report", spec.report if spec.rounds > 1 else None)):
            if option_of(section or {}, "gold") is not None:
                yield (
                    f"{key}.gold",
                    "goes with one trained model, and several are compared here; leave it out, and give it to "
                    f"'maskdpo {key}' with one of them",
                )
    if spec.rounds == 1:
        for key in ("round_prompts", "sample_later"):
            if key in spec.model_fields_set:
                yield key.replace("_", "-"), "goes with 'rounds', two or more"
        return
    missing = [name for name in ("sample", "annotate", "build_pairs", "train") if getattr(spec, name) is None]
    if missing:
        names = ", ".join(name.replace("_", "-") for name in missing)
        yield "rounds", f"every round samples, judges, pairs and trains, and these sections are missing: {names}"
    if spec.also_train:
        yield (
            "also-train",
            "trains several models on the same pairs, and in 'rounds' the next pairs are of one model; give each "
            "training a file and an 'out' of its own, and set their held-out annotations beside each other with "
            "'maskdpo evaluate --compare'",
        )
    if spec.push is not None:
        yield (
            "push",
            "publishes the pairs of one round, and 'rounds' makes those of several; publish one with 'maskdpo push'",
        )
    later = spec.sample_later or {}
    elsewhere = any(option_of(later, key) is not None for key in ("backend", "api_base"))
    if option_of(spec.sample or {}, "backend") == "openai" and not elsewhere:
        yield (
            "sample-later",
            f"{'is missing' if spec.sample_later is None else 'names no backend'}: 'sample' asks a server, which does "
            "not know the model of the round before; say how the rounds after the first are sampled, such as "
            "sample-later: {backend: vllm}, or name the server of the trained models as its 'api-base'",
        )
    if option_of(spec.train or {}, "merge") is False:
        yield (
            "train.merge",
            "writes the adapter alone, and the next round begins with a whole model; leave 'merge' out",
        )
