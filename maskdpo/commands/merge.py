"""``maskdpo merge``."""

from maskdpo import console
from maskdpo.merge.merge import MergeSettings


def merge(settings: MergeSettings) -> None:
    """Put the outputs of all parts of one `--shard I/N` together, as one run would have written them.

    A part that is missing, not complete, or of another run is an error. The parts stay as they are.
    """
    from maskdpo.merge.merge import merge as run

    stats = run(settings.parts, settings.out)
    rows: list[tuple[str, object]] = [("parts", stats.parts), ("records", stats.records)]
    rows += [("answers that failed", stats.missing)] if stats.missing else []
    console.table(f"merge -> {settings.out}", ("", "count"), rows)
    if stats.missing:
        console.warn(
            f"{console.counted(stats.missing, 'answer is', 'answers are')} missing, because calls failed; `maskdpo "
            f"{stats.command}` with this output and without --shard asks again"
        )
