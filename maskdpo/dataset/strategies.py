"""Which answers of a prompt are put together. A strategy is a function of the answers and the options, no more."""

from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import NamedTuple

from maskdpo.dataset.candidates import Candidate
from maskdpo.dataset.filters import apart, may_be_chosen, may_be_rejected
from maskdpo.dataset.lots import lot
from maskdpo.dataset.options import PairOptions
from maskdpo.registry import Registry

DEFAULT_K = 2


class Proposal(NamedTuple):
    """The better and the worse answer of what may become a pair; the better one always scores higher."""

    better: Candidate
    worse: Candidate

    @property
    def id(self) -> str:
        ids = (self.better.id, self.worse.id)
        if not any("|" in id for id in ids):
            return "|".join(ids)
        # else `a|b`, `c` and `a`, `b|c` were the same pair; "||" keeps apart from ids that hold %7C themselves
        return "||".join(id.replace("%", "%25").replace("|", "%7C") for id in ids)

    @property
    def rises(self) -> bool:
        return self.better.score > self.worse.score


class Pool(NamedTuple):
    """The answers of one prompt, by what they may be. An answer with right and wrong sentences is mostly in both."""

    better: list[Candidate]
    """May be chosen; the best first."""
    worse: list[Candidate]
    """May be rejected; the worst first."""

    @classmethod
    def of(cls, candidates: Iterable[Candidate], options: PairOptions) -> "Pool":
        """Ties go to more right (more wrong) sentences, then to the id: the order of the input does not matter."""
        answers = list(candidates)
        return cls(
            sorted((a for a in answers if may_be_chosen(a, options)), key=lambda a: (-a.score, -a.counts.right, a.id)),
            sorted((a for a in answers if may_be_rejected(a)), key=lambda a: (a.score, -a.counts.wrong, a.id)),
        )


Strategy = Callable[[Pool, PairOptions], list[Proposal]]
"""Both sides of the pool hold an answer at least; no proposals: no answer to choose beats one to reject."""


def best_worst(pool: Pool, options: PairOptions) -> list[Proposal]:
    """The paper's rule: the most and the least factual answer of a prompt."""
    best = Proposal(pool.better[0], pool.worse[0])
    return [best] if best.rises else []


def every_two(pool: Pool, options: PairOptions) -> list[Proposal]:
    """Every two answers of which one scores higher."""
    both = (Proposal(better, worse) for better in pool.better for worse in pool.worse)
    return [proposal for proposal in both if proposal.rises]


def top_bottom(pool: Pool, options: PairOptions) -> list[Proposal]:
    """The best with the worst, the second best with the second worst, up to ``k``.

    It ends where the two ranks meet, so no answer is used twice.
    """
    k = options.k or DEFAULT_K
    both = (Proposal(better, worse) for better, worse in zip(pool.better[:k], pool.worse[:k], strict=False))
    return list(takewhile(lambda proposal: proposal.rises, both))


def best_random(pool: Pool, options: PairOptions) -> list[Proposal]:
    """The best answer with one drawn from all that are worse by the margin; with the worst where there is none."""
    best = pool.better[0]
    proposals = [Proposal(best, worse) for worse in pool.worse if apart(best, worse, options.min_margin)]
    rising = [proposal for proposal in proposals if proposal.rises]
    if not rising:
        return best_worst(pool, options)
    return [min(rising, key=lambda proposal: (lot(options.seed, "best-random", proposal.id), proposal.id))]


STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    {"best-worst": best_worst, "all": every_two, "top-bottom": top_bottom, "best-random": best_random},
)
"""To add a strategy: a function and a line here."""
