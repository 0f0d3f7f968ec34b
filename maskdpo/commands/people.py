"""``maskdpo review``, ``agree`` and ``gold``."""

from maskdpo import console
from maskdpo.people.settings import AgreeSettings, GoldSettings
from maskdpo.review.settings import ReviewSettings


def review(settings: ReviewSettings) -> None:
    """Decide sentences on a page of this machine, one key each; every decision is a line of a file at once.

    Repeat the same command to go on. docs/review.md says which queue answers which question.
    """
    from maskdpo.review.serve import review as run

    counts = run(settings)
    rows = [(name.replace("_", " "), count) for name, count in counts.items()]
    console.table(f"review -> {settings.out}", ("sentences", "count"), rows)


def agree(settings: AgreeSettings) -> None:
    """Say how far people agree with each other, and with the judge.

    docs/gold.md says what the figures mean, and what to do where people differ.
    """
    from maskdpo.io import refuse_overwriting
    from maskdpo.people.agree import agree as run
    from maskdpo.people.tables import tables_of
    from maskdpo.run_record import refuse_replacing

    if settings.json_file:
        refuse_overwriting(settings.json_file, *settings.decisions)
        refuse_replacing(settings.json_file)
    result = run(settings)
    if settings.json_file:
        result.write_json(settings.json_file)
    for table in tables_of(result):
        console.table(table.title, table.columns, table.rows, table.notes)


def gold(settings: GoldSettings) -> None:
    """Make gold labels of the decisions of people: the label that most gave, or that an adjudication settled.

    Ties are left out. The file is taken by `evaluate --gold`, `calibrate --gold`, `train-judge` and
    `build-pairs --gold`.
    """
    from maskdpo.people.gold import make_gold
    from maskdpo.people.tables import gold_rows, gold_warnings

    stats = make_gold(settings)
    console.table(f"gold -> {settings.out}", ("", "count"), gold_rows(stats))
    for warning in gold_warnings(stats):
        console.warn(warning)
