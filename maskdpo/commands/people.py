"""``maskdpo review``."""

from maskdpo import console
from maskdpo.review.settings import ReviewSettings


def review(settings: ReviewSettings) -> None:
    """Decide sentences on a page of this machine, one key each; every decision is a line of a file at once.

    Repeat the same command to go on. docs/review.md says which queue answers which question.
    """
    from maskdpo.review.serve import review as run

    counts = run(settings)
    console.table(
        f"review -> {settings.out}", ("sentences", "count"), [(k.replace("_", " "), v) for k, v in counts.items()]
    )
