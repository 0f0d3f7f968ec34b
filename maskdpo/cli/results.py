"""``maskdpo evaluate``, ``report`` and ``validate``."""

from pathlib import Path
from typing import Annotated

import typer

from maskdpo import console
from maskdpo.cli.app import app
from maskdpo.cli.options import AnnotationsArg, PromptsOption, Seed
from maskdpo.cli.train_flags import Method
from maskdpo.errors import UserError


@app.command()
def evaluate(
    annotations: AnnotationsArg,
    prompts: PromptsOption = None,
    gold: Annotated[Path | None, typer.Option(help="Annotations with human labels: how well do ours agree?")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Annotations of another model (after) to set beside these (before).")
    ] = None,
    length_penalty: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="GAMMA",
            help="Add FActScore's precision; n < GAMMA right and wrong sentences cost an answer exp(1 - GAMMA/n).",
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too, as JSON.")] = None,
    seed: Seed = 0,
) -> None:
    """Count right, wrong, no-fact and not-judged sentences per answer, with 95% intervals over topics."""
    from maskdpo.evaluate.tables import evaluate_files
    from maskdpo.io import refuse_overwriting

    if json:
        refuse_overwriting(json, annotations, prompts, gold, compare)
    found = evaluate_files(
        annotations, prompts=prompts, gold=gold, compared=compare, length_penalty=length_penalty, seed=seed
    )
    if json:
        found.write_json(json)
    for table in found.tables():
        console.table(table.title, table.columns, table.rows)


@app.command()
def report(
    annotations: Annotated[
        Path,
        typer.Argument(
            help="Annotation or pair records, or a training: the folder that train has written, or its metrics.jsonl.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The HTML file.")],
    compare: Annotated[
        Path | None, typer.Option(help="Annotations from after, or another training, to set beside these.")
    ] = None,
    prompts: PromptsOption = None,
    gold: Annotated[Path | None, typer.Option(help="Annotations with human labels.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Pairs: mark the very tokens that train with this model's tokenizer, not whole sentences."),
    ] = None,
    method: Annotated[
        Method | None, typer.Option(help="With --model: which tokens count; see `maskdpo train --help`.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    seed: Seed = 0,
) -> None:
    """Write one self-contained HTML page: every sentence coloured by its label, or the curves of a training."""
    from maskdpo.evaluate.report import write_report

    tokens = None
    if model is not None:
        from maskdpo.train.data.trained_tokens import trained_tokens

        tokens = trained_tokens(model, method or "mask-dpo")
    elif method is not None:
        raise UserError("--method: only with --model, whose tokenizer says what the tokens are")
    stats = write_report(
        annotations, out, compare=compare, prompts=prompts, gold=gold, tokens=tokens, title=title, seed=seed
    )
    console.table(f"report -> {out}", ("", "count"), stats.counts())


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
