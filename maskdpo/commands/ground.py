"""``maskdpo ground``."""

from maskdpo import console
from maskdpo.ground.settings import GroundSettings


def ground(settings: GroundSettings) -> None:
    """Fill the references of prompts with passages out of documents (docs/ground.md).

    Repeat the same command to continue an interrupted run.
    """
    from maskdpo.ground.ground import ground as run

    stats = run(settings)
    rows: list[tuple[str, object]] = [("prompts", stats.prompts)]
    rows += [("of them grounded before", stats.already_there)] if stats.already_there else []
    rows += [("prompts with passages", stats.grounded), ("passages", stats.passages)]
    rows += [("prompts for which nothing was found", stats.nothing_found)]
    if stats.corpus:
        rows += [
            ("documents", stats.corpus.documents),
            ("of them without text", stats.corpus.without_text),
            ("passages to look through", stats.corpus.passages),
        ]
    console.table(f"ground -> {settings.out}", ("", "count"), rows)
    if stats.nothing_found:
        console.warn(
            f"{console.counted(stats.nothing_found, 'prompt')} got no passage, because the documents have too "
            "few of the words that were looked up; "
            f"{console.counted(stats.without_reference, 'prompt has', 'prompts have')} no reference at all"
        )
