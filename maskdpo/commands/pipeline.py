"""``maskdpo run`` and ``lineage``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from maskdpo import console
from maskdpo.errors import UserError
from maskdpo.lineage import LineageSettings
from maskdpo.pipeline.settings import RunSettings
from maskdpo.train.settings import TrainSettings

if TYPE_CHECKING:
    from maskdpo.lineage import Node
    from maskdpo.pipeline.spec import Stage


def run(settings: RunSettings) -> None:
    """Run all stages out of one file; see docs/pipeline.md and examples/.

    What is up to date is passed over, what was interrupted goes on. Repeat the same command as often as you like.
    """
    from maskdpo.commands import COMMANDS
    from maskdpo.pipeline.execute import plan, run_stages
    from maskdpo.pipeline.spec import load_pipeline

    stages = load_pipeline(settings.file, COMMANDS)
    names = {stage.name for stage in stages}
    if "train" in names and names & {"evaluate", "report"} and "sample-after" not in names:
        console.warn(
            f"{settings.file}: there is no `heldout`, so `evaluate` and `report` judge only answers of the model "
            "before training"
        )
    _check_references(stages)
    if not settings.dry_run:
        run_stages(stages, settings.start)
        return
    console.out.print(Text(f"run {settings.file}", "bold"), soft_wrap=True)
    grid = Table()
    for column in ("stage", "state", "why"):
        grid.add_column(column)
    for stage, state in plan(stages, settings.start):
        grid.add_row(stage.name, state.action, Text(console.spelled(state.why)))
    console.out.print(grid)


def _check_references(stages: Sequence["Stage"]) -> None:
    """Refuse a reference that a training would refuse, before the hours of the stages in front of it. A model that a
    stage makes may not be there yet, and has the vocabulary of the one that it is trained from."""
    from maskdpo.models import load_tokenizer
    from maskdpo.pipeline.state import state_of
    from maskdpo.train.run.reference import check_vocabulary

    made = {stage.out.resolve() for stage in stages if stage.out is not None}
    for stage in stages:
        train = stage.settings
        if not isinstance(train, TrainSettings) or train.reference is None or state_of(stage).action == "up to date":
            continue
        if made & {Path(train.model).resolve(), Path(train.reference).resolve()}:
            continue
        try:
            check_vocabulary(train, load_tokenizer(train.model, trust_remote_code=train.trust_remote_code))
        except UserError as error:
            raise UserError(f"{stage.name}: {error}") from None


def lineage(settings: LineageSettings) -> None:
    """Show what a file was made from, back to the prompts, and what has changed since."""
    from maskdpo.lineage import problems, trace

    node = trace(settings.file)
    if settings.as_json:
        console.out.print_json(json.dumps(node.as_json()))
        return
    console.out.print(_tree(node))
    for problem in problems(node):
        console.warn(problem)


COLOURS = {"unchanged": "green", "moved": "yellow", "unknown": "yellow", "changed": "red", "missing": "red"}


def _tree(node: "Node", above: Tree | None = None) -> Tree:
    title = Text.assemble((f"{node.path}", "bold"))
    if node.role != "output":
        title = Text.assemble(f"{node.role}: ", title, "  ", (node.state, COLOURS[node.state]))
    if node.repeated:
        title.append("  (as above)", "dim")
    elif node.run:
        made = "" if node.run.status == "complete" else ", not finished"
        begun = f"{node.run.begun[:16].replace('T', ' ')} UTC, " if node.run.begun else ""
        title.append(f"\n{node.run.command}: {begun}{node.run.seconds:.1f} s{made}", "dim")
        line = node.run.command_line.replace("\n", "\\n")
        title.append(f"\n$ {line}" if line else "", "dim")
    branch = above.add(title) if above else Tree(title)
    for child in node.inputs:
        _tree(child, branch)
    return branch
