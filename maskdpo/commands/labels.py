"""``maskdpo calibrate`` and ``relabel``."""

from maskdpo import console
from maskdpo.annotate.settings import RelabelSettings
from maskdpo.calibrate.settings import CalibrateSettings
from maskdpo.commands.answers import label_rows, warn_of_labels


def calibrate(settings: CalibrateSettings) -> None:
    """Fit what turns the scores of a judge into labels to gold labels; the figures are of topics it was not fitted to.

    docs/calibrate.md says how, and how much gold is enough.
    """
    from maskdpo.calibrate.calibrate import calibrate as run
    from maskdpo.calibrate.tables import tables_of

    result = run(settings)
    for table in tables_of(result):
        console.table(table.title, table.columns, table.rows)


def relabel(settings: RelabelSettings) -> None:
    """Decide the labels of annotations anew, from the scores that they hold: the judge is not asked again.

    Without a calibration and a least confidence the judge's own labels come back.
    """
    from maskdpo.annotate.deciding import read_rule
    from maskdpo.annotate.relabel import relabel as run

    rule = read_rule(settings.calibration, settings.min_confidence)
    stats = run(settings.annotations, settings.out, rule, summary=settings.summary)
    rows: list[tuple[str, object]] = [("answers", stats.file.annotations), ("sentences", stats.file.sentences)]
    rows += [
        *label_rows(stats.file),
        ("sentences with another label than before", stats.changed),
        ("unsure that had a label before", stats.now_unsure),
        *([("fragments that were judged before", stats.now_fragments)] if stats.now_fragments else []),
    ]
    console.table(f"relabel -> {settings.out}", ("", "count"), rows)
    warn_of_labels(stats.file, rule)
