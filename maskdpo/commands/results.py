"""``maskdpo evaluate``, ``report`` and ``validate``."""

import typer

from maskdpo import console
from maskdpo.errors import UserError
from maskdpo.evaluate.settings import EvaluateSettings, ReportSettings
from maskdpo.validate import ValidateSettings


def evaluate(settings: EvaluateSettings) -> None:
    """Count right, wrong, no-fact and not-judged sentences per answer, with 95% intervals over topics."""
    from maskdpo.evaluate.evaluation import evaluate_files
    from maskdpo.evaluate.plot import draw_figures
    from maskdpo.io import refuse_overwriting
    from maskdpo.io.plot import check_plot
    from maskdpo.run_record import refuse_replacing

    inputs = (
        *settings.annotations,
        settings.prompts,
        settings.gold,
        *settings.compare,
        settings.compare_gold,
        *settings.side_effects,
    )
    for out in (settings.json_file, settings.plot):
        if out:
            refuse_overwriting(out, *inputs)
            refuse_replacing(out)
    if settings.plot:
        check_plot(settings.plot)
    found = evaluate_files(settings)
    if settings.json_file:
        found.write_json(settings.json_file)
    if settings.plot:
        draw_figures(settings.plot, found.main_figures())
    for table in found.tables():
        console.table(table.title, table.columns, table.rows, table.notes)


def report(settings: ReportSettings) -> None:
    """Write one self-contained HTML page: every sentence coloured by its label, or the curves of a training."""
    from maskdpo.evaluate.report import write_report

    tokens = None
    if settings.model is not None:
        from maskdpo.train.data.trained_tokens import trained_tokens

        tokens = trained_tokens(settings.model, settings.method or "mask-dpo")
    elif settings.method is not None:
        raise UserError("`method` goes with `model`, whose tokenizer says what the tokens are")
    stats = write_report(settings, tokens)
    console.table(f"report -> {settings.out}", ("", "count"), stats.counts())


def validate(settings: ValidateSettings) -> None:
    """Check record files; every error is one line: file:line: field: message."""
    from maskdpo.validate import validate_file

    result = validate_file(settings.files, settings.prompts, settings.max_errors)
    for error in result.errors:
        console.fail(str(error))
    more = f" (stopped after {console.counted(settings.max_errors, 'error')})" if result.stopped else ""
    console.table(
        f"validate {', '.join(map(str, settings.files))}",
        ("", "count"),
        [(f"valid {result.kind} records", result.valid), ("errors" + more, len(result.errors))],
    )
    if result.errors:
        raise typer.Exit(2)
