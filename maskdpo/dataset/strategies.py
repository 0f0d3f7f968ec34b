"""Which answers to a prompt make pairs. A strategy is a function of the answers and the options."""

from collections.abc import Callable, Iterable
from itertools import starmap, takewhile
from typing import NamedTuple

from maskdpo.dataset.candidates import Candidate
from maskdpo.dataset.draw import draw
from maskdpo.dataset.filters import differ_by_margin, may_be_chosen, may_be_rejected
from maskdpo.dataset.options import PairOptions
from maskdpo.registry import Registry, problem_of_a_function

DEFAULT_K = 2


class Proposal(NamedTuple):
    """Two answers that may become a pair; the chosen one always scores higher."""

    chosen: Candidate
    rejected: Candidate

    @property
    def id(self) -> str:
        ids = (self.chosen.id, self.rejected.id)
        if not any("|" in id for id in ids):
            return "|".join(ids)
        # else `a|b`, `c` and `a`, `b|c` would be the same pair; "||" marks an id that is escaped
        return "||".join(id.replace("%", "%25").replace("|", "%7C") for id in ids)

    @property
    def chosen_scores_higher(self) -> bool:
        return self.chosen.score > self.rejected.score


class Eligible(NamedTuple):
    """The answers to one prompt that may be chosen, and those that may be rejected.

    Most answers with right and wrong sentences are in both lists.
    """

    chosen: list[Candidate]
    """The best first."""
    rejected: list[Candidate]
    """The worst first."""

    @classmethod
    def of(cls, candidates: Iterable[Candidate], options: PairOptions) -> "Eligible":
        """Ties are broken by more right (more wrong) sentences, then by id; the order of the input does not matter."""
        answers = list(candidates)
        return cls(
            sorted((a for a in answers if may_be_chosen(a, options)), key=lambda a: (-a.score, -a.counts.right, a.id)),
            sorted((a for a in answers if may_be_rejected(a)), key=lambda a: (a.score, -a.counts.wrong, a.id)),
        )


Strategy = Callable[[Eligible, PairOptions], list[Proposal]]
"""Called with at least one answer on both sides. Returns nothing where no answer to choose scores higher than one to
reject."""


def best_worst(eligible: Eligible, options: PairOptions) -> list[Proposal]:
    """The rule of the paper: the most and the least factual answer to a prompt."""
    best = Proposal(eligible.chosen[0], eligible.rejected[0])
    return [best] if best.chosen_scores_higher else []


def every_two(eligible: Eligible, options: PairOptions) -> list[Proposal]:
    """Every two answers with different scores."""
    proposals = (Proposal(chosen, rejected) for chosen in eligible.chosen for rejected in eligible.rejected)
    return [proposal for proposal in proposals if proposal.chosen_scores_higher]


def top_bottom(eligible: Eligible, options: PairOptions) -> list[Proposal]:
    """The best with the worst, the second best with the second worst, up to ``k``.

    The pairs end where the two orders meet, so no answer is used twice.
    """
    k = options.k or DEFAULT_K
    proposals = starmap(Proposal, zip(eligible.chosen[:k], eligible.rejected[:k], strict=False))
    return list(takewhile(lambda proposal: proposal.chosen_scores_higher, proposals))


def best_random(eligible: Eligible, options: PairOptions) -> list[Proposal]:
    """The best answer with one drawn from all that are worse by the margin; without such answers, with the worst."""
    best = eligible.chosen[0]
    rejected = [answer for answer in eligible.rejected if differ_by_margin(best, answer, options.min_margin)]
    proposals = [Proposal(best, answer) for answer in rejected if best.score > answer.score]
    if not proposals:
        return best_worst(eligible, options)
    return [min(proposals, key=lambda proposal: (draw(options.seed, "best-random", proposal.id), proposal.id))]


STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    {"best-worst": best_worst, "all": every_two, "top-bottom": top_bottom, "best-random": best_random},
    check=problem_of_a_function,
)
"""To add a strategy: a function and a line here."""
