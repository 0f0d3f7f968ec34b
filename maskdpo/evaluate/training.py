"""A training's figures: the files that ``train`` writes beside the model, and the page that draws them.

    metrics.jsonl      one line a step
    eval.jsonl         one line a look at held-out pairs, where the run had some
    maskdpo_run.json   its settings

What the page can do is in ``templates/training/*.js``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from maskdpo.console import warn
from maskdpo.errors import InputError
from maskdpo.html.render import Payload, SummaryTable, render
from maskdpo.io import atomic_write, open_input
from maskdpo.run_record import META_IN_FOLDER, RunMeta, read_meta

METRICS, EVALS = "metrics.jsonl", "eval.jsonl"
FILES = (METRICS, EVALS, META_IN_FOLDER)
"""What is read of a training's folder."""

SCRIPTS = ("training/data", "training/axes", "training/panels", "training/start")


def _finite(value: float | None) -> float | None:
    """A loss that is no number any more is a gap in its curve; ``TrainingStats.broken`` counts them."""
    return value if value is not None and math.isfinite(value) else None


Figure = Annotated[float | None, AfterValidator(_finite)]


class Look(BaseModel):
    """What is drawn of a look at held-out pairs: a line of ``eval.jsonl``. What else stands there is left alone."""

    model_config = ConfigDict(frozen=True)

    step: Annotated[int, Field(ge=0)]
    loss: Figure
    margin: Figure = None
    accuracy: Figure = None
    reward_kept_chosen: Figure = None
    reward_kept_rejected: Figure = None
    reward_masked_chosen: Figure = None
    reward_masked_rejected: Figure = None


class Step(Look):
    """What is drawn of a step: a line of ``metrics.jsonl``."""

    tokens_per_s: Figure = None
    pairs_per_s: Figure = None
    peak_share: Figure = None
    memory_gb: Figure = None
    grad_norm: Figure = None
    lr: Figure = None
    seconds: Figure = None


RowT = TypeVar("RowT", bound=Look)


@dataclass(frozen=True)
class Training:
    """A run as its files tell it."""

    name: str
    steps: list[Step]
    looks: list[Look]
    record: RunMeta | None


@dataclass(frozen=True)
class TrainingStats:
    """What went into a page."""

    runs: int
    steps: int
    looks: int
    broken: int
    """Steps whose loss is no finite number."""
    bytes: int

    def counts(self) -> list[tuple[str, int]]:
        """As the command prints them."""
        return [
            ("runs", self.runs),
            ("steps", self.steps),
            ("looks at held-out pairs", self.looks),
            ("size, kB", round(self.bytes / 1000)),
        ]


def training_folder(path: Path) -> Path | None:
    """The folder of a training that a path names, by itself or by its metrics file; None: it is something else."""
    if path.name == METRICS:
        return path.parent
    return path if (path / METRICS).exists() else None


def write_training_page(out: Path, folders: Sequence[Path], *, title: str | None = None) -> TrainingStats:
    """Write the page for one training, or for several drawn over each other."""
    runs = [read_training(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    payload: Payload = {"runs": [_payload(run) for run in runs]}
    tables = [_results(runs), *_settings(runs)]
    page = render(
        "maskdpo.evaluate",
        "training.html.j2",
        SCRIPTS,
        payload,
        title or f"Training: {', '.join(r.name for r in runs)}",
        tables,
    )
    with atomic_write(out) as file:
        file.write(page)
    broken = sum(step.loss is None for run in runs for step in run.steps)
    if broken:
        warn(f"{broken} steps have a loss that is no finite number: gaps in the curves")
    return TrainingStats(
        runs=len(runs),
        steps=sum(len(run.steps) for run in runs),
        looks=sum(len(run.looks) for run in runs),
        broken=broken,
        bytes=len(page),
    )


def read_training(folder: Path, name: str) -> Training:
    """The figures of a run, which may still be under way.

    Raises:
        InputError: there are no steps, or a line is none.
    """
    steps = list(_rows(folder / METRICS, Step))
    if not steps:
        message = "holds no step yet: the training has not begun, or stopped before its first one"
        raise InputError(message, path=folder / METRICS)
    looks = list(_rows(folder / EVALS, Look)) if (folder / EVALS).exists() else []
    return Training(name, steps, looks, read_meta(folder / META_IN_FOLDER))


def _rows(file: Path, model: type[RowT]) -> Iterator[RowT]:
    """All whole lines: a last one without its end is being written right now."""
    with open_input(file, as_is=True) as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield model.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(part) for part in first["loc"])
                message = f"{first['msg']}; this is no line that maskdpo train writes"
                raise InputError(message, path=file, line=number, field=field or None) from None


def _names(folders: Sequence[Path]) -> list[str]:
    """Short and different: the folders' own names, or as they were given where two share one."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _payload(run: Training) -> Payload:
    """Columns instead of rows: a tenth of the size, and what a curve needs."""
    return {
        "name": run.name,
        "steps": _columns(run.steps, Step),
        "looks": _columns(run.looks, Look) if run.looks else None,
    }


def _columns(rows: Sequence[Look], model: type[Look]) -> Payload:
    columns = {name: [_short(getattr(row, name)) for row in rows] for name in model.model_fields}
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}


def _short(value: float | None) -> float | None:
    """Six digits, more than a curve shows."""
    return value if value is None or isinstance(value, int) else float(f"{value:.6g}")


def _results(runs: Sequence[Training]) -> SummaryTable:
    """What came out, a column a run; first -> last where both tell something."""
    rows = [
        ("steps", [f"{run.steps[-1].step:,}{_state(run)}" for run in runs]),
        ("loss", [_change(run.steps, "loss") for run in runs]),
        ("loss, held out", [_change(run.looks, "loss") for run in runs]),
        ("lowest held-out loss", [_lowest(run.looks) for run in runs]),
        ("margin", [_change(run.steps, "margin") for run in runs]),
        ("margin, held out", [_change(run.looks, "margin") for run in runs]),
        ("accuracy, held out", [_change(run.looks, "accuracy") for run in runs]),
        ("reward of masked tokens, chosen", [_change(run.steps, "reward_masked_chosen") for run in runs]),
        ("reward of masked tokens, rejected", [_change(run.steps, "reward_masked_rejected") for run in runs]),
        ("tokens / s, median", [_median(run.steps, "tokens_per_s", ",.0f") for run in runs]),
        ("pairs / s, median", [_median(run.steps, "pairs_per_s", ".3g") for run in runs]),
        ("share of the device's peak, median", [_median(run.steps, "peak_share", ".1%") for run in runs]),
        ("peak memory, GB", [_last(run.steps, "memory_gb", ".1f") for run in runs]),
    ]
    shown = [(name, *cells) for name, cells in rows if any(cell != "-" for cell in cells)]
    return SummaryTable("What came out (first → last)", ("", *(run.name for run in runs)), shown)


def _state(run: Training) -> str:
    return " (not finished)" if run.record is not None and run.record.status == "running" else ""


def _values(rows: Sequence[Look], name: str) -> list[float]:
    return [value for row in rows if (value := getattr(row, name)) is not None]


def _change(rows: Sequence[Look], name: str) -> str:
    values = _values(rows, name)
    return f"{values[0]:.3f} → {values[-1]:.3f}" if values else "-"


def _lowest(looks: Sequence[Look]) -> str:
    known = [(look.loss, look.step) for look in looks if look.loss is not None]
    return "{:.3f} at step {}".format(*min(known)) if known else "-"


def _median(rows: Sequence[Look], name: str, form: str) -> str:
    values = sorted(_values(rows, name))
    return format(values[len(values) // 2], form) if values else "-"


def _last(rows: Sequence[Look], name: str, form: str) -> str:
    values = _values(rows, name)
    return format(values[-1], form) if values else "-"


def _settings(runs: Sequence[Training]) -> Iterator[SummaryTable]:
    """The settings that a record tells of; of several runs, those that differ."""
    if not any(run.record for run in runs):
        return
    options = [run.record.options if run.record else {} for run in runs]
    names = list(dict.fromkeys(name for known in options for name in known))
    rows = [(name, *(_setting(known.get(name)) for known in options)) for name in names]
    rows = [row for row in rows if any(row[1:])] if len(runs) == 1 else [row for row in rows if len(set(row[1:])) > 1]
    title = "Settings" if len(runs) == 1 else "Settings that differ"
    yield SummaryTable(title, ("", *(run.name for run in runs)), rows or [("none", *("" for _ in runs))])


def _setting(value: object) -> str:
    return "" if value is None else str(value)
