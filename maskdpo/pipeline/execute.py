"""Run what has to run, stage after stage, in this process."""

import gc
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from maskdpo.console import say
from maskdpo.errors import CannotContinue, InputError, Interrupted, UserError
from maskdpo.io import is_on_hub, record_type
from maskdpo.pipeline.refusal import refusal
from maskdpo.pipeline.spec import Stage
from maskdpo.pipeline.state import State, state_of
from maskdpo.run_record import meta_file
from maskdpo.settings import interrupted
from maskdpo.stage_run import OtherSettings, invoked_as, note_arguments

INPUTS = frozenset({"prompts", "responses", "annotations", "pairs", "compare", "gold", "compare_gold", "eval", "file"})
"""Options that name a file of records."""


def plan(stages: Sequence[Stage], start: str | None = None) -> Iterator[tuple[Stage, State]]:
    """What ``run_stages`` would do, without doing it: a stage follows those whose outputs it reads."""
    made: dict[Path, tuple[Stage, State]] = {}
    refused = ""
    first = _index_of(stages, start)
    _check_inputs(stages[first:])
    for i, stage in enumerate(stages):
        if start:
            yield stage, State("anew", f"`start` {start}") if i >= first else State("up to date", "taken as it is")
            continue
        state = State("not reached", f"{refused} refuses") if refused else _planned(stage, made)
        refused = stage.name if state.action == "refuses" else refused
        if state.action != "up to date":
            made |= {file.resolve(): (stage, state) for file in stage.outputs}
        yield stage, state


def _planned(stage: Stage, made: Mapping[Path, tuple[Stage, State]]) -> State:
    """The state that a stage will be in.

    Args:
        made: by output, the stages before it that will run.
    """
    state = state_of(stage)
    models = (Path(stage.given[role]) for role in ("model", "reference") if stage.given.get(role))
    read = [file.resolve() for file in (*stage.inputs.values(), *models)]
    before = [made[file] for file in read if file in made]
    after = f"after {', '.join(dict.fromkeys(earlier.name for earlier, _ in before))}"
    if state.action not in ("up to date", "continue"):
        return state
    if any(earlier.action in ("run", "anew") for _, earlier in before):
        return State("anew", after)
    unsettled = ("changed", "continue or anew")
    if any(earlier.action in unsettled or not made_by.settings.continues for made_by, earlier in before):
        return State("continue or anew", after)
    if state.action == "continue" and (why := refusal(stage, made)):
        return State("refuses", f"{why}; `start` {stage.name} begins it anew")
    return State("continue", after) if before else state


def run_stages(stages: Sequence[Stage], start: str | None = None) -> list[tuple[Stage, State]]:
    """Run the stages; what is up to date is passed over, what was interrupted goes on.

    Args:
        start: begin at this stage. Those before it are taken as they are; it and all after it are made anew, and
            what they have made before is set aside.

    Returns:
        What became of each stage.
    """
    first = _index_of(stages, start)
    _check_inputs(stages[first:])
    done = []
    for i, stage in enumerate(stages):
        if i < first:
            continue
        state = State("anew", f"`start` {start}") if start else state_of(stage)
        say(f"[{i + 1}/{len(stages)}] {stage.name}: {state.action}{f' ({state.why})' if state.why else ''}")
        if state.action != "up to date":
            shown = stage.line.replace("\n", "\\n")  # `--stop` takes it in this form too
            say(f"$ {shown}")
            _run(stage, state)
            _free_memory()
        done.append((stage, state))
    return done


def _index_of(stages: Sequence[Stage], start: str | None) -> int:
    """Where to begin.

    Raises:
        UserError: there is no such stage.
    """
    if start is None:
        return 0
    names = [stage.name for stage in stages]
    if start not in names:
        raise UserError(f"`start` {start}: no such stage; the file has: {', '.join(names)}")
    return names.index(start)


def _check_inputs(stages: Sequence[Stage]) -> None:
    """Files that no stage will make must be there before the first hour is spent."""
    made = {file.resolve() for stage in stages for file in stage.outputs}
    for stage in stages:
        for role, path in stage.inputs.items():
            kind = role.partition("-")[0]
            if kind == "corpus" and not is_on_hub(path) and not path.exists():
                raise UserError(f"{stage.name} reads {InputError('no such file or folder', path=path)}")
            if kind in INPUTS and path.resolve() not in made:
                try:
                    record_type(path)
                except InputError as error:
                    raise UserError(f"{stage.name} reads {error}") from None


def _run(stage: Stage, state: State) -> None:
    # the record of an output that is gone must not pass for the beginning of the next one
    lost = stage.out is not None and not stage.out.exists()
    arguments = stage.plain  # a file of settings may be edited while the stage runs
    with invoked_as(stage.line, arguments):
        try:
            _call(stage, restart=lost or state.action == "anew")
        except OtherSettings as error:
            if state.action != "changed":
                raise _refused(stage, error) from None
            say(f"{stage.name}: these options decide the result; the earlier output is set aside")
            _call(stage, restart=True)
        except KeyboardInterrupt:
            stopped = interrupted(stage.settings)
            raise Interrupted(f"{stage.name}: {stopped}", signal.SIGINT) from None
        except Interrupted as error:
            raise Interrupted(f"{stage.name}: {error}", error.exit_code - 128) from None
        except UserError as error:
            raise _refused(stage, error) from None
    if stage.out is not None:
        note_arguments(meta_file(stage.out), arguments)


def _refused(stage: Stage, error: UserError) -> UserError:
    """The error of a stage. No section takes the `restart` that would help, nor another `out`."""
    instead = f". In a pipeline: `start` {stage.name}" if isinstance(error, CannotContinue) else ""
    return UserError(f"{stage.name}: {error}{instead}")


def _call(stage: Stage, restart: bool) -> None:
    settings = stage.settings
    stage.call(settings.but(restart=restart) if settings.continues else settings)


def _free_memory() -> None:
    """A stage's model must be gone before the next one loads its own."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
