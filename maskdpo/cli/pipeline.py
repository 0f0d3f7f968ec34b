"""``maskdpo run`` and ``lineage``."""

import json as json_module
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from maskdpo import console
from maskdpo.cli import answers, pairs, results, training
from maskdpo.cli.app import app

if TYPE_CHECKING:
    from maskdpo.lineage import Node

COMMANDS: dict[str, Callable[..., None]] = {
    "sample": answers.sample,
    "annotate": answers.annotate,
    "build-pairs": pairs.build_pairs,
    "train": training.train,
    "evaluate": results.evaluate,
    "report": results.report,
}
"""What a pipeline may call. The options of these functions are the keys of its sections."""


@app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="PIPELINE.yaml", help="The pipeline.", show_default=False)],
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STAGE",
            help="Begin here: take what is before as it is, set aside and make anew this stage and all after it.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done, and why.")] = False,
) -> None:
    """Run all stages out of one file; see docs/pipeline.md and examples/.

    What is up to date is passed over, what was interrupted goes on. Repeat the same command as often as you like.
    """
    from maskdpo.pipeline.execute import plan, run_stages
    from maskdpo.pipeline.spec import load_pipeline

    stages = load_pipeline(file, COMMANDS)
    if not dry_run:
        run_stages(stages, start)
        return
    grid = Table(title=f"run {file}", title_justify="left", title_style="bold")
    for column in ("stage", "state", "why"):
        grid.add_column(column)
    for stage, state in plan(stages, start):
        grid.add_row(stage.name, state.action, Text(state.why))
    console.out.print(grid)


@app.command()
def lineage(
    file: Annotated[Path, typer.Argument(help="A dataset, or the folder of a trained model.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with all options and versions.")] = False,
) -> None:
    """Show what a file was made from, back to the prompts, and what has changed since."""
    from maskdpo.lineage import problems, trace

    node = trace(file)
    if json:
        console.out.print_json(json_module.dumps(node.as_json()))
        return
    console.out.print(_tree(node))
    for problem in problems(node):
        console.warn(problem)


COLOURS = {"unchanged": "green", "moved": "yellow", "unknown": "yellow", "changed": "red", "missing": "red"}


def _tree(node: "Node", above: Tree | None = None) -> Tree:
    title = Text.assemble((f"{node.path}", "bold"))
    if node.role != "output":
        title = Text.assemble(f"{node.role}: ", title, "  ", (node.state, COLOURS[node.state]))
    if node.run:
        made = "" if node.run.status == "complete" else ", not finished"
        begun = f"{node.run.begun[:16].replace('T', ' ')} UTC, " if node.run.begun else ""
        title.append(f"\n{node.run.command}: {begun}{node.run.seconds:.1f} s{made}", "dim")
        line = node.run.command_line.replace("\n", "\\n")
        title.append(f"\n$ {line}" if line else "", "dim")
    branch = above.add(title) if above else Tree(title)
    for child in node.inputs:
        _tree(child, branch)
    return branch
