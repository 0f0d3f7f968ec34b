"""``maskdpo train-judge``: from labelled sentences to the folder of a judge; resumable by the same command."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maskdpo.classifier.model import Classifier
from maskdpo.classifier.spec import ClassifierSpec, write_spec
from maskdpo.console import say, warn
from maskdpo.devices import pick_device
from maskdpo.errors import InputError, UserError
from maskdpo.hub.header import CARD
from maskdpo.identity import fingerprint
from maskdpo.io import atomic_write
from maskdpo.io.lock import LOCK_SUFFIX, sole_writer
from maskdpo.judge_training.base import load_base
from maskdpo.judge_training.card import judge_card, settings_text
from maskdpo.judge_training.checkpoint import State
from maskdpo.judge_training.curves import draw_curves
from maskdpo.judge_training.data import Data, read_data
from maskdpo.judge_training.figures import ScoreSentences, fit_calibration, judge_examples, judge_figures
from maskdpo.judge_training.loop import Loop
from maskdpo.judge_training.result import DataCounts, JudgeResult
from maskdpo.judge_training.rows import Reader, make_rows
from maskdpo.judge_training.settings import TrainJudgeConfig, TrainJudgeSettings
from maskdpo.judge_training.step import Trainer
from maskdpo.judge_training.targets import speaks_of
from maskdpo.run_folder import moved_in_last_config, read_rows, remove_all, stop_between_steps
from maskdpo.run_record import META_IN_FOLDER, read_meta
from maskdpo.schemas.training import CALIBRATION, CHECKPOINTS, CURVES, EVALS, METRICS, SETTINGS
from maskdpo.stage_run import Run, by_role, set_aside
from maskdpo.verdicts.decision import read_calibration


def train_judge(settings: TrainJudgeSettings, score: ScoreSentences) -> JudgeResult | None:
    """Fine-tune a base on labelled sentences and write a folder that ``annotate --judge classifier`` takes.

    Args:
        score: judges sentences with the finished folder, for its calibration and figures.

    Returns:
        What was done, or None where ``out`` already holds the finished run.

    Raises:
        UserError: bad input, no such base or device, or ``out`` holds another run or is being written to.
        Interrupted: a signal asked to stop, and the step that was under way is saved.
    """
    _check(settings)
    with sole_writer(settings.out):
        return _train_judge(settings, score)


def _train_judge(settings: TrainJudgeSettings, score: ScoreSentences) -> JudgeResult | None:
    config, out, device = settings.config(), settings.out, pick_device(settings.device)
    earlier = None if settings.restart else read_meta(out / META_IN_FOLDER)
    files = fingerprint(config.model, earlier.options.get("model_files") if earlier else None)
    recorded = config.model_dump(mode="json") | {"model_files": files}
    if settings.calibration:
        recorded["calibration"] = read_calibration(settings.calibration).hash
    run = None if settings.restart else _record(settings, recorded)
    if run and run.previous and run.previous.status == "complete":
        say(f"{out}: this very run is complete; nothing to do (`restart` trains it again)")
        return None
    data = read_data(settings, config)
    if data.gold_seen:
        warn(
            f"{settings.eval_file}: {len(data.gold_seen)} of its topics are among the labelled ones too, which train "
            "the judge or choose its weights, so its figures will be too good"
        )
    reader, left_out = Reader(data.spec, data.tokenizer), Counter[str]()
    rows, held_out = (
        make_rows(some, reader, data.classes, soft=config.soft, left_out=left_out)
        for some in (data.train, data.held_out)
    )
    if not rows:
        raise UserError(f"no sentence is left to train on: {_listed(left_out)}")
    base = load_base(config, data.spec, data.tokenizer, device, fresh=data.fresh)
    if run is None:  # the earlier run is only set aside for one that can begin
        set_aside(out)
        run = _record(settings, recorded)
    run.begin({"model_files": fingerprint(config.model, files)})
    loop = Loop(out, Trainer(base, config), rows, held_out, settings.save_every)
    with stop_between_steps() as signalled:
        state = loop.run(signalled)
    _export(base.merged(), data.spec, config, out)
    changed = sum(example.changed is not None for example in data.train)
    counts = DataCounts(len(rows), changed, len(held_out), dict(left_out))
    result = _measured(settings, score, data, counts, state, loop.total)
    run.meta.counts = {"sentences": len(rows), "held_out": len(held_out), "steps": state.step}
    _write_texts(settings, run, result)
    run.finish(run.meta.counts)
    remove_all(out / CHECKPOINTS)
    return result


def _check(settings: TrainJudgeSettings) -> None:
    """What can be refused before anything is read."""
    out = settings.out
    if out.is_file():
        raise InputError("is a file; `out` must name a folder", path=out)
    found = [file for file in out.iterdir() if file.suffix != LOCK_SUFFIX] if out.exists() else []
    if not settings.restart and found and not (out / META_IN_FOLDER).exists():
        raise InputError("the folder exists and holds no maskdpo run; name another `out`", path=out)


def _record(settings: TrainJudgeSettings, recorded: dict[str, Any]) -> Run:
    inputs = by_role("labelled", settings.labelled) | by_role("prompts", settings.prompts)
    named = {"eval": settings.eval_file, "eval-prompts": settings.eval_prompts, "calibration": settings.calibration}
    return Run(
        settings.out / META_IN_FOLDER,
        "train-judge",
        recorded,
        inputs | {role: file for role, file in named.items() if file is not None},
        restart="Use another `out`, or `restart` to set it aside and begin anew",
    )


def _export(classifier: Classifier, spec: ClassifierSpec, config: TrainJudgeConfig, out: Path) -> None:
    """Model, tokenizer and spec, as the folder that judges."""
    with moved_in_last_config(out) as folder:
        classifier.model.save_pretrained(folder)
        classifier.tokenizer.save_pretrained(folder)
        write_spec(spec.model_copy(update=_OF_THE_BASE), folder)
        (folder / SETTINGS).write_text(settings_text(config), encoding="utf-8")


_OF_THE_BASE: dict[str, Any] = {
    "model": None, "revision": None, "licence": None, "published": (), "safetensors": None, "notes": None,
}  # fmt: skip
"""What a spec says of the base alone."""


def _measured(
    settings: TrainJudgeSettings,
    score: ScoreSentences,
    data: Data,
    counts: DataCounts,
    state: State,
    total: int,
) -> JudgeResult:
    """The finished judge on the held-out topics, its calibration, and its figures on gold."""
    out, seed = settings.out, settings.seed
    held_out = [e for e in data.held_out if speaks_of(e.label, data.classes)]
    fitted, of_held_out, of_gold = None, None, None
    if held_out:
        info, judged = judge_examples(score, str(out), held_out, settings.device)
        fitted = fit_calibration(held_out, judged, info, seed)
        of_held_out = judge_figures(held_out, judged, None)
        if fitted is None:
            warn("too few held-out sentences, right or wrong, to calibrate the judge: use `maskdpo calibrate`")
    file = out / CALIBRATION
    if fitted is None:
        file.unlink(missing_ok=True)
    else:
        with atomic_write(file) as handle:
            handle.write(fitted.calibration.model_dump_json(indent=2, exclude_defaults=True).encode() + b"\n")
    if data.gold:
        _, judged = judge_examples(score, str(out), data.gold, settings.device)
        of_gold = judge_figures(data.gold, judged, fitted.calibration if fitted else None)
    return JudgeResult(
        out=out,
        classes=data.classes,
        files=data.files,
        data=counts,
        steps=state.step,
        total=total,
        best=state.best,
        held_out=of_held_out,
        gold=of_gold,
        gold_seen=len(data.gold_seen),
        calibration=file if fitted else None,
        calibrated_to=fitted.labels if fitted else None,
    )


def _write_texts(settings: TrainJudgeSettings, run: Run, result: JudgeResult) -> None:
    out = settings.out
    writers: dict[str, Callable[[Any], None]] = {
        CARD: lambda file: file.write(judge_card(settings, run.meta, result).encode()),
        CURVES: lambda file: draw_curves(file, read_rows(out / METRICS), read_rows(out / EVALS)),
    }
    for name, write in writers.items():
        with atomic_write(out / name) as handle:
            write(handle)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in counts.most_common()) or "there is none"
