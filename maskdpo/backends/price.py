"""What the calls of a server cost, in dollars: prices, and the purse that the calls of a backend are paid from."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from maskdpo.errors import UserError
from maskdpo.run_record import Spent
from maskdpo.stage_run import Run

Tokens = tuple[int, int, int]
"""Those of a call: of the prompt, those of them that came out of the server's cache, and of the completions."""
NONE: Tokens = (0, 0, 0)
"""The server reports no tokens."""
Price = Callable[[int, int, int], float]
"""The dollars for the tokens of a call."""
RECORD_SECONDS = 0.5
"""The record of a run says at least so often what the run has spent."""


class OutOfMoney(UserError):
    """The next call may cost more than is left. The calls before it are answered."""


def figures(given: str) -> tuple[float, float, float]:
    """Dollars for a million prompt tokens, cached prompt tokens and completion tokens, out of IN,OUT or IN,CACHED,OUT.

    Raises:
        ValueError: the text has another form.
    """
    try:
        numbers = [float(part) for part in given.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or any(not 0 <= number < float("inf") for number in numbers):
        raise ValueError(f"{given!r} is not of the form IN,OUT or IN,CACHED,OUT, in dollars per million tokens")
    return numbers[0], numbers[-2], numbers[-1]


def price_of(model: str, url: str, given: str | None) -> Price | None:
    """The price of a model on a server: the one that the user gave, or the one in the list of genai-prices; else None.

    The list knows providers by the URL of their API: a model on a server of one's own has no price there.
    """
    if given is not None:
        prompt_price, cached_price, completion_price = figures(given)

        def by_figures(prompt: int, cached: int, completion: int) -> float:
            return ((prompt - cached) * prompt_price + cached * cached_price + completion * completion_price) / 1e6

        return by_figures

    from genai_prices import Usage, calc_price  # late: it takes a moment

    def by_list(prompt: int, cached: int, completion: int) -> float:
        usage = Usage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=completion)
        return float(calc_price(usage, model, provider_api_url=url).total_price)

    try:
        by_list(1, 0, 1)
    except LookupError:
        return None
    return by_list


class Purse:
    """What the calls of a backend have cost and may still cost. Calls run on one event loop at a time.

    A call is made where its worst case, as estimated by the caller, fits beside what is spent and the worst cases of
    the calls under way: the limit holds as long as no call costs more than its worst case. The first call goes alone,
    to show how the server counts. If a call costs more than its worst case all the same, all worst cases grow by its
    factor, and the limit can be passed by what the calls then under way cost beyond theirs.

    Args:
        limit: dollars, for what earlier runs have spent together with this one; None: no limit.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._before = 0.0
        self.spent = Spent()
        self.watch: Callable[[], None] = lambda: None
        """Called by the backend after each reply, on the thread that reads the replies."""
        self._under_way: list[float] = []
        """The worst cases of calls, as estimated."""
        self._scale: float | None = None
        """The largest share of its worst case, as estimated, that a call has cost; at least 1. None: no call has ended
        yet."""
        self._waiting: list[asyncio.Future[None]] = []

    def begin(self, before: float) -> None:
        """Begin a run whose output has cost so much before."""
        self._before, self.spent = before, Spent()

    @property
    def at_most(self) -> Spent:
        """What this run has taken, if all calls under way get lost."""
        return self.spent + Spent(unanswered=self._worst(*self._under_way))

    async def reserve(self, worst: float) -> None:
        """Set the worst case of a call aside, after a wait for other calls where it would not fit beside theirs.

        Raises:
            OutOfMoney: it does not fit although no call is under way.
        """
        while not self._fits(worst):
            if not self._under_way:
                limit, spent = dollars(self._limit or 0.0), dollars(self._before + self.spent.most)
                raise OutOfMoney(
                    f"stopped before `max_cost` {limit} is passed: {spent} are spent, and the next call costs up to "
                    f"{dollars(self._worst(worst))} in the worst case. Finished records are kept, and calls about "
                    "unfinished ones are made again: repeat the command with a greater `max_cost` to go on"
                )
            ended = asyncio.get_running_loop().create_future()
            self._waiting.append(ended)
            await ended
        self._under_way.append(worst)

    def settle(self, worst: float, tokens: Tokens, price: Price | None, *, lost: bool) -> None:
        """End a call.

        Args:
            tokens: those that the server reports, also with an error.
            lost: where it reports none: whether it may bill the call all the same.
        """
        self._under_way.remove(worst)
        prompt, cached, completion = tokens
        if any(tokens):
            cost = price(*tokens) if price else None
            self.spent += Spent(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion, cost=cost)
            self._scale = max(self._scale or 1.0, (cost or 0.0) / worst if worst else 1.0)
        elif lost:
            self.spent += Spent(unanswered=self._worst(worst))
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def _worst(self, *estimated: float) -> float:
        return sum(estimated) * (self._scale or 1.0)

    def _fits(self, worst: float) -> bool:
        if self._limit is None:
            return True
        if self._scale is None and self._under_way:
            return False
        return self._before + self.spent.most + self._worst(worst, *self._under_way) <= self._limit


class Account:
    """Keeps the record of a run up to date with what its calls have taken."""

    def __init__(self, purse: Purse, run: Run) -> None:
        self._purse, self._run = purse, run
        self._noted = float("-inf")

    @property
    def cost(self) -> float | None:
        """Dollars that this run has spent; None where no price is known."""
        return self._purse.spent.cost

    @property
    def text(self) -> str:
        """For a progress bar."""
        return "" if self.cost is None else f", {dollars(self.cost)}"

    def note(self, *, at_once: bool = False) -> None:
        """Write what is spent into the record, now or where the last time was a while ago."""
        if at_once or time.monotonic() - self._noted >= RECORD_SECONDS:
            self._run.note_spent(self._purse.at_most)
            self._noted = time.monotonic()


@contextmanager
def account(backend: object, run: Run) -> Iterator[Account]:
    """The account of a run, noted in its record however the run ends. Other backends than ``openai`` cost nothing."""
    purse = getattr(backend, "purse", None)
    if not isinstance(purse, Purse):
        purse = Purse(None)
    purse.begin(run.spent_before.most)
    kept = Account(purse, run)
    purse.watch = kept.note
    try:
        yield kept
    finally:
        purse.watch = lambda: None
        kept.note(at_once=True)


def refuse_purse(asks: object, name: str) -> None:
    """Refuse workers for what pays for its calls: each worker would have a purse, and a limit, of its own.

    Args:
        asks: a backend, or the judge that has one.
        name: of it, for the error.
    """
    if getattr(getattr(asks, "backend", asks), "purse", None) is not None:
        raise UserError(
            f"{name} pays for its calls (it has a `purse`), and `workers` hold a model each and no money: leave out "
            "`workers`"
        )


def dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"
