"""Whether a stage has to run, by the record beside its output."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from maskdpo.console import counted
from maskdpo.identity import fingerprint
from maskdpo.pipeline.spec import Stage
from maskdpo.run_record import RunMeta, changed_outputs, holds, meta_file, read_meta, record_of, recorded_models

ALWAYS = frozenset({"agree", "evaluate", "report", "export", "push"})
"""Quick, and for people or other tools: they run each time."""


@dataclass(frozen=True)
class State:
    """What becomes of a stage, and why."""

    action: Literal["up to date", "run", "continue", "changed", "anew", "continue or anew", "refuses", "not reached"]
    """``continue`` keeps what the output already holds, ``anew`` sets it aside. ``changed``: the file has other options
    than those recorded; the stage knows whether they decide its result, and only then it is made anew. Only a plan has
    ``continue or anew``, where that depends on what an earlier stage will make; ``refuses``; and, of the stages that
    follow one that refuses, ``not reached``."""
    why: str


def state_of(stage: Stage) -> State:
    """Compare the record of a stage with its inputs and options.

    An input that was itself begun anew after this output makes it void; one that has only grown, or was edited, is
    for the stage to judge: it keeps what is done and adds the rest, or refuses.
    """
    if stage.command in ALWAYS or stage.out is None:
        return State("run", "quick, always made anew")
    meta = read_meta(meta_file(stage.out)) if stage.out.exists() else None
    if meta is None:
        return State("run", "no output yet" if not stage.out.exists() else "nothing is recorded about its output")
    changed = list(changed_inputs(stage, meta))
    void = [role for role, path in changed if _begun(path) > meta.begun]
    if void:
        return State("anew", f"{' and '.join(void)} made anew")
    if meta.arguments and (differences := _differences(meta.arguments, stage.plain)):
        return State("changed", "; ".join(differences))
    if meta.status == "running":
        return State("continue", "interrupted")
    if changed:
        return State("continue", f"{' and '.join(role for role, _ in changed)} changed")
    if damaged := list(changed_outputs(stage.out, meta)):
        return State("continue", ", ".join(f"{name} {how} since it was made" for name, how in damaged))
    if failed := _failed(stage, meta):
        return State("continue", failed)
    if not meta.arguments:
        return State("continue", "made by hand: it sees itself what is left to do")
    return State("up to date", "")


def _failed(stage: Stage, meta: RunMeta) -> str | None:
    """What a finished run has left to ask again: prompts always, sentences where the file says so."""
    if prompts := meta.counts.get("failed"):
        return f"{counted(prompts, 'prompt')} without an answer"
    sentences = meta.counts.get("whole_file", {}).get("failed")
    if sentences and stage.given.get("retry_failed"):
        return f"{counted(sentences, 'sentence')} without a verdict"
    return None


def changed_inputs(stage: Stage, meta: RunMeta) -> Iterator[tuple[str, Path]]:
    """Role and place of what is no longer what the run had read."""
    for role, digest in meta.inputs.items():
        path = stage.inputs.get(role)
        if path is not None and not holds(path, digest):
            yield role, path
    for role, (model, recorded) in recorded_models(meta).items():
        if recorded and model == stage.given.get(role) and fingerprint(model, recorded) != recorded:
            yield role, Path(model)


def _begun(path: Path) -> str:
    record = record_of(path)
    meta = read_meta(record) if record else None
    return meta.begun if meta else ""


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    keys = sorted(before.keys() | now.keys())
    return [
        f"{key}: {before.get(key, 'default')} -> {now.get(key, 'default')}"
        for key in keys
        if before.get(key) != now.get(key)
    ]
