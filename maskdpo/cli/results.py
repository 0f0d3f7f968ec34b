"""``maskdpo evaluate``, ``report`` and ``validate``."""

from pathlib import Path
from typing import Annotated

import typer

from maskdpo import console
from maskdpo.cli.app import app
from maskdpo.cli.options import AnnotationsArg, PromptsOption, Seed


@app.command()
def evaluate(
    annotations: AnnotationsArg,
    prompts: PromptsOption = None,
    gold: Annotated[Path | None, typer.Option(help="Annotations with human labels: how well do ours agree?")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Annotations of another model (after) to set beside these (before).")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Count right, wrong, no-fact and not-judged sentences per answer, with 95% intervals over topics."""
    from maskdpo.evaluate.tables import agreement_tables, comparison_table, summary_table

    tables = (
        [comparison_table(annotations, compare, prompts, seed)]
        if compare
        else [summary_table(annotations, prompts, seed)]
    )
    tables += agreement_tables(annotations, gold, seed) if gold else []
    for table in tables:
        console.table(table.title, table.columns, table.rows)


@app.command()
def report(
    annotations: Annotated[Path, typer.Argument(help="Annotation or pair records (JSONL).", show_default=False)],
    out: Annotated[Path, typer.Option(help="The HTML file.")],
    compare: Annotated[Path | None, typer.Option(help="Annotations from after, to set beside these.")] = None,
    prompts: PromptsOption = None,
    gold: Annotated[Path | None, typer.Option(help="Annotations with human labels.")] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    seed: Seed = 0,
) -> None:
    """Write one self-contained HTML page with every sentence coloured by its label."""
    from maskdpo.evaluate.report import write_report

    stats = write_report(annotations, out, compare=compare, prompts=prompts, gold=gold, title=title, seed=seed)
    rows: list[tuple[str, object]] = [
        ("answers", stats.answers),
        ("sentences", stats.sentences),
        ("without a counterpart", stats.unmatched),
        ("size, kB", round(stats.bytes / 1000)),
    ]
    console.table(f"report -> {out}", ("", "count"), rows)


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="Any record file (JSONL).", show_default=False)],
    prompts: PromptsOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Errors to print before giving up.")] = 20,
) -> None:
    """Check a record file; every error is one line: file:line: field: message."""
    from maskdpo.validate import validate_file

    result = validate_file(file, prompts, limit)
    for error in result.errors:
        console.fail(str(error))
    more = f" (stopped after {limit} errors)" if result.stopped else ""
    console.table(
        f"validate {file}",
        ("", "count"),
        [(f"valid {result.kind} records", result.valid), ("errors" + more, len(result.errors))],
    )
    if result.errors:
        raise typer.Exit(2)
