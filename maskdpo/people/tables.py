"""What ``maskdpo agree`` and ``gold`` print."""

from collections.abc import Iterator

from maskdpo.console import counted
from maskdpo.html.render import SummaryTable
from maskdpo.people.agree import AgreeResult, Figures
from maskdpo.people.gold import GoldStats
from maskdpo.verdicts.estimate import FEW_TOPICS, few_topics

Row = tuple[str, ...]

INTERVALS = "with 95% intervals over topics"
ALPHA_NAMES = {"labels": "all labels", "classes": "right, wrong, no fact"}
NONE_DRAWN = (
    "No sentence that several people have labelled was drawn at random for each of them, so nothing is known of their "
    "agreement on all answers. Let two people review with --queue random and the same seed; --all-sentences counts "
    "what there is."
)
NONE_SHARED = "No sentence has labels of several people. Let two people review with --queue random and the same seed."


def tables_of(result: AgreeResult) -> Iterator[SummaryTable]:
    """Who has decided how much, people against people, people against the judge."""
    rows: list[Row] = [
        (name, f"{n:,}", f"{result.skipped.get(name, 0):,}") for name, n in sorted(result.reviewers.items())
    ]
    differing = counted(len(result.differing), "sentence has", "sentences have")
    yield SummaryTable(
        f"{counted(result.decided, 'sentence')}, {result.shared:,} of them by several reviewers",
        ("reviewer", "labels", "skipped"),
        rows,
        [f"{differing} different labels that nobody has settled."] if result.differing else [],
    )
    if result.people is None:
        several = result.shared > 0
        yield SummaryTable(
            "people against people",
            ("", "sentences"),
            [("labels of several people", f"{result.shared:,}"), ("of them drawn at random together", "0")],
            [NONE_DRAWN if several else NONE_SHARED],
        )
    else:
        rows = [(ALPHA_NAMES.get(name, name), str(found)) for name, found in result.people.figures.items()]
        title, notes = f"people against people: {_size(result.people)}", few_topics(result.people.topics)
        yield SummaryTable(title, (INTERVALS, "Krippendorff's alpha"), rows, notes)
    if result.pairs:
        rows = [(f"{a}, {b}", *_cells(found)) for (a, b), found in result.pairs.items()]
        columns = ("two reviewers", "sentences", "same label", "Cohen's kappa")
        yield SummaryTable("two by two", columns, rows)
    if result.judge:
        rows = [(shown, *_cells(found)) for shown, found in result.judge.items()]
        columns = ("in three classes", "labels of people", "same class", "Cohen's kappa")
        notes = few_topics(min(found.topics for found in result.judge.values()))
        yield SummaryTable("people against the judge", columns, rows, [*_influence(result), *notes])


def _size(found: Figures) -> str:
    return f"{counted(found.sentences, 'sentence')}, {counted(found.topics, 'topic')}"


def _cells(found: Figures) -> tuple[str, ...]:
    return f"{found.sentences:,}", str(found.figures["accuracy"]), str(found.figures["kappa"])


def _influence(result: AgreeResult) -> Iterator[str]:
    shown, hidden = (result.judge.get(f"label {how}") for how in ("shown", "hidden"))
    if shown is None or hidden is None:
        return
    apart = shown.figures["accuracy"].low > hidden.figures["accuracy"].high
    if apart and min(shown.topics, hidden.topics) >= FEW_TOPICS:
        yield (
            "People agree more with the judge where they saw its label: they follow it. Review with all labels hidden "
            "(`--blind 1`) before you measure the judge."
        )


def gold_warnings(stats: GoldStats) -> Iterator[str]:
    """What the user should know before relying on figures against this gold."""
    if stats.other_draw:
        yield (
            f"{counted(stats.other_draw, 'sentence was', 'sentences were')} drawn by another queue than the others; "
            "two draws have no common probability, so what this one drew counts as not drawn at random"
        )
    if stats.chosen and not stats.drawn:
        yield (
            "no sentence was drawn at random: figures against this gold describe the sentences that were chosen, as "
            "doubtful for example, and not the answers. Review with --queue random or stratified for such figures"
        )
    if stats.drawn_left_out:
        share = stats.drawn_left_out / (stats.drawn + stats.drawn_left_out)
        yield (
            f"{stats.drawn_left_out:,} drawn sentences ({share:.0%}) are left out because people differ, so this gold "
            "is easier than the answers are, and a judge looks better on it. Have them settled: maskdpo review --queue "
            "disagreement"
        )


def gold_rows(stats: GoldStats) -> list[tuple[str, object]]:
    """The rows of the table that ``gold`` prints."""
    return [
        ("answers", stats.answers),
        ("sentences with a gold label", stats.sentences),
        ("of them labelled by several people", stats.several_reviewers),
        ("of them settled by an adjudication", stats.adjudicated),
        ("of them with the probability of their draw", stats.drawn),
        ("left out: ties", stats.ties),
        ("left out: cut differently by as many people", stats.cut_differently),
        ("left out: skipped by all", stats.skipped),
    ]
