"""``maskdpo export`` and ``import``."""

from maskdpo import console
from maskdpo.formats.exporting import ExportSettings
from maskdpo.formats.importing import ImportSettings


def export(settings: ExportSettings) -> None:
    """Write records in another tool's format. docs/formats.md says what each can hold."""
    from maskdpo.formats.exporting import config_file, export_file

    stats = export_file(settings.file, settings.out, settings.format, settings.prompts)
    rows: list[tuple[str, object]] = [("records", stats.records), ("sentences not judged", stats.not_judged)]
    console.table(f"export -> {settings.out}", ("", "count"), rows)
    if settings.format == "label-studio":
        console.say(f"the labelling interface is in {config_file(settings.out)}")
    if settings.format == "mask-dpo-paper" and stats.plain:
        pairs = console.counted(stats.plain, "pair has", "pairs have")
        console.warn(f"{pairs} plain strings (--raw); the paper's code takes chat messages only")
    if settings.format == "mask-dpo-paper" and stats.not_judged:
        sentences = console.counted(stats.not_judged, "sentence was", "sentences were")
        console.warn(f"{sentences} not judged; the paper's code trains on such sentences, maskdpo does not")


def import_(settings: ImportSettings) -> None:
    """Make records out of another format; rows that do not fit are left out, with the reason, and counted."""
    from maskdpo.formats.importing import IMPORTS, import_file, parse_columns, prompts_file

    stats = import_file(
        settings.file,
        settings.out,
        settings.format,
        settings.max_errors,
        columns=parse_columns(settings.columns),
        limit=settings.limit,
    )
    for error in stats.errors:
        console.warn(f"rejected: {error}")
    rows: list[tuple[str, object]] = [(f"{stats.kind} records", stats.records)]
    rows += [("sentences", stats.sentences)] if stats.kind == "pair" else []
    rows += [("rows rejected", stats.rejected)]
    console.table(f"import -> {settings.out}", ("", "count"), rows)
    if any(reader.prompt for reader in IMPORTS[settings.format].values()):
        console.say(f"their prompts, with the references, are in {prompts_file(settings.out)}")
