"""``maskdpo export`` and ``import``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from maskdpo import console
from maskdpo.cli.app import app
from maskdpo.cli.options import PromptsOption


@app.command()
def export(
    file: Annotated[
        Path, typer.Argument(help="Pair or annotation records (JSONL, Parquet, a dataset).", show_default=False)
    ],
    to: Annotated[
        Literal["trl", "mask-dpo-paper", "label-studio", "argilla"],
        typer.Option(
            "--format",
            help="From pairs: `trl` (prompt, chosen, rejected), `mask-dpo-paper` (the training data of the paper's "
            "code). From annotations, with --prompts: `label-studio`, `argilla`.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write; Label Studio's interface goes to NAME.xml beside it.")],
    prompts: PromptsOption = None,
) -> None:
    """Write records in another tool's format. docs/formats.md says what each can hold."""
    from maskdpo.formats.transfer import config_file, export_file

    stats = export_file(file, out, to, prompts)
    rows: list[tuple[str, object]] = [("records", stats.records), ("sentences not judged", stats.not_judged)]
    console.table(f"export -> {out}", ("", "count"), rows)
    if to == "label-studio":
        console.say(f"the labelling interface is in {config_file(out)}")
    if to == "mask-dpo-paper" and stats.plain:
        console.warn(f"{stats.plain} pairs are plain strings (--raw); the paper's code takes chat messages only")
    if to == "mask-dpo-paper" and stats.not_judged:
        console.warn(f"{stats.not_judged} sentences were not judged; the paper's code trains on them, maskdpo does not")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="The other format's file (JSONL).", show_default=False)],
    source: Annotated[
        Literal["mask-dpo-paper", "anah"],
        typer.Option(
            "--format",
            help="`mask-dpo-paper`: training data of the paper's code, to pairs. `anah`: {question, document} to "
            "prompts, or {question, response} to responses.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The records: JSONL or, named `.parquet`, Parquet.")],
    limit: Annotated[int, typer.Option(min=0, help="Rejected rows to print; all are counted.")] = 20,
) -> None:
    """Make records out of another format; rows that do not fit are left out, with the reason, and counted."""
    from maskdpo.dataset.write import own_test_file
    from maskdpo.errors import InputError
    from maskdpo.formats.transfer import import_file

    test = own_test_file(out)
    if test is not None:
        raise InputError(f"build-pairs made it together with {test.name}; name another --out, or move both", path=out)
    stats = import_file(file, out, source, limit)
    for error in stats.errors:
        console.warn(f"rejected: {error}")
    rows: list[tuple[str, object]] = [(f"{stats.kind} records", stats.records)]
    rows += [("sentences", stats.sentences)] if stats.kind == "pair" else []
    rows += [("rows rejected", stats.rejected)]
    console.table(f"import -> {out}", ("", "count"), rows)
