"""AdamW in few bytes: moments of 8 bits, weights in bfloat16 that are rounded stochastically.

    bytes per parameter      weights   gradient   moments
    adamw,     float32          4          4       4 + 4
    adamw8bit, float32          4          4       1 + 1
    adamw,     bfloat16         2          2       4 + 4
    adamw8bit, bfloat16         2          2       1 + 1

A code of 8 bits stands for a share of the largest number of its block, and each block has a float32 scale. A block is
part of one row of a matrix (at most ``BLOCK`` numbers), so that codes and scales of a matrix that is split by rows are
read by any number of ranks. Vectors, and rows that cannot be divided into blocks, keep float32 moments.

    first moment     share = sign(c) (c / 127)^4, c in -127 .. 127
    second moment    share = (c / 255)^8, c in 1 .. 255

The eighth power covers 19 decades: a second moment that becomes 0 while the first does not would divide by ``EPS``, and
the weight would jump. A moment is rounded stochastically to one of the two codes around it, so that the mean is exact:
a step changes the second moment by a thousandth, codes are 3% apart or more, and rounding to the nearest would never
let it decay. For the same reason updates of weights in bfloat16 are rounded stochastically: at lr 1e-6 nearly all of
them are below half a step of bfloat16.

The random numbers follow from (seed, step, parameter, rank), so that a resumed run ends with the same bits.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, zeros

from maskdpo.train.config import TrainConfig
from maskdpo.train.ranks import Ranks

BLOCK = 256
SMALLEST_BLOCK = 32
"""Shorter blocks would not save much: a scale has 4 bytes."""
BETAS, EPS = (0.9, 0.999), 1e-8
CHUNK, CPU_CHUNK = 1 << 22, 1 << 18
"""Numbers of a parameter that are updated at the same time: about 50 bytes each are needed on the way. On a CPU they
stay in its cache."""
TINY = 1e-38

Moment = tuple[Tensor, Tensor | None]
"""Codes and scales, or float32 numbers and None."""


def make_optimizer(groups: Sequence[dict[str, Any]], config: TrainConfig, ranks: Ranks) -> torch.optim.Optimizer:
    """The optimiser of ``config.optim`` for weights of ``config.weights``: torch's own AdamW where both are wide."""
    eight_bit = config.optim == "adamw8bit"
    if not eight_bit and config.weights == "float32":
        return torch.optim.AdamW(groups, lr=config.lr, fused=True)
    return LowBitAdamW(
        groups, config.lr, eight_bit=eight_bit, seed=config.seed, rank=ranks.rank, compiled=config.compile
    )


def zero_state(optimizer: torch.optim.Optimizer, parameter: Tensor, step: int) -> dict[str, Any]:
    """The optimiser's state of a parameter after so many steps, with moments of 0 for saved ones to be put into."""
    if isinstance(optimizer, LowBitAdamW):
        return optimizer.new_state(parameter, step)
    count = torch.tensor(float(step), device=parameter.device)
    return {"step": count} | {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}


class LowBitAdamW(torch.optim.Optimizer):
    """AdamW (with decoupled weight decay) for weights in float32 or bfloat16, with moments of 8 bits or in float32.

    State by parameter: ``step`` (an int), ``exp_avg`` and ``exp_avg_sq``; where these are codes, ``exp_avg_scale`` and
    ``exp_avg_sq_scale`` [..., blocks of a row]. All but ``step`` are split among ranks as the parameter is.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        *,
        eight_bit: bool,
        seed: int,
        rank: int = 0,
        compiled: bool = False,
        stochastic: bool = True,
    ) -> None:
        """
        Args:
            groups: each with ``params`` and ``weight_decay``.
            compiled: let torch.compile fuse the operations of an update.
            stochastic: False rounds weights and moments to the nearest, to show what that loses.
        """
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self.eight_bit = eight_bit
        self.seed, self.rank = seed, rank
        self.stochastic = stochastic
        self._update = torch.compile(update, dynamic=True) if compiled else update

    def new_state(self, parameter: Tensor, step: int) -> dict[str, Any]:
        """The state of a parameter with moments of 0."""
        width = block_width(parameter) if self.eight_bit else 0
        if not width:
            moments = {name: _zeros(parameter, parameter.shape, torch.float32) for name in ("exp_avg", "exp_avg_sq")}
            return {"step": step} | moments
        scales = (*parameter.shape[:-1], parameter.shape[-1] // width)
        return {
            "step": step,
            "exp_avg": _zeros(parameter, parameter.shape, torch.int8),
            "exp_avg_scale": _zeros(parameter, scales, torch.float32),
            "exp_avg_sq": _zeros(parameter, parameter.shape, torch.uint8),
            "exp_avg_sq_scale": _zeros(parameter, scales, torch.float32),
        }

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        parameters = [(p, group) for group in self.param_groups for p in group["params"]]
        for number, (parameter, group) in enumerate(parameters):
            if parameter.grad is None:
                continue
            if parameter not in self.state:
                self.state[parameter] = self.new_state(parameter, 0)
            state = self.state[parameter]
            state["step"] += 1
            corrections = [1 - beta ** state["step"] for beta in BETAS]
            factors = [1 - group["lr"] * group["weight_decay"], group["lr"] / corrections[0], corrections[1] ** -0.5]
            random = self._generator(parameter.device, state["step"], number)
            names = ("exp_avg", "exp_avg_scale", "exp_avg_sq", "exp_avg_sq_scale")
            tensors = [parameter.detach(), parameter.grad, *(state.get(name) for name in names)]
            for weights, gradient, first, first_scale, second, second_scale in _chunks(tensors):
                draws = torch.randint(
                    1 << 31, weights.shape, dtype=torch.int32, device=weights.device, generator=random
                )
                if not self.stochastic:
                    draws.fill_((1 << 30) + (1 << 15))  # halves: to the nearest
                self._update(
                    weights, gradient, (first, first_scale), (second, second_scale), draws, *map(torch.tensor, factors)
                )

    def _generator(self, device: torch.device, step: int, parameter: int) -> torch.Generator:
        words = np.random.SeedSequence([self.seed, step, parameter, self.rank]).generate_state(2, np.uint32)
        return torch.Generator(device).manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def block_width(parameter: Tensor) -> int:
    """How many numbers of a row share a scale: the largest divisor of its length up to ``BLOCK``; 0: no codes."""
    if parameter.ndim < 2:
        return 0
    width = next(n for n in range(min(BLOCK, parameter.shape[-1]), 0, -1) if parameter.shape[-1] % n == 0)
    return width if width >= SMALLEST_BLOCK else 0


def update(
    weights: Tensor,
    gradient: Tensor,
    first: Moment,
    second: Moment,
    draws: Tensor,
    keep: Tensor,
    size: Tensor,
    root: Tensor,
) -> None:
    """AdamW's update of some rows, in place.

    Args:
        weights, gradient: [rows, columns] float32 or bfloat16.
        first, second: the moments; scales are [rows, blocks].
        draws: [rows, columns] int32, uniform in 0 .. 2^31 - 1: the lower 16 bits round weights and first moment, the
            others the second moment.
        keep, size, root: 1 - lr * weight decay, lr / (1 - beta1^t), (1 - beta2^t)^-1/2.
    """
    wide = gradient.float()
    m = _read_first(*first).lerp_(wide, 1 - BETAS[0])
    v = _read_second(*second).mul_(BETAS[1]).addcmul_(wide, wide, value=1 - BETAS[1])
    coarse = draws & 0xFFFF
    _write_first(m, *first, (coarse.float() + 0.5) / (1 << 16))
    _write_second(v, *second, ((draws >> 16).float() + 0.5) / (1 << 15))
    changed = weights.float() * keep - size * m / (v.sqrt_() * root + EPS)
    if weights.dtype == torch.bfloat16:  # the upper half of the bits of a float32 number
        changed = ((changed.view(torch.int32) + coarse) & -0x10000).view(torch.float32)
    weights.copy_(changed)


def _read_first(codes: Tensor, scale: Tensor | None) -> Tensor:
    if scale is None:
        return codes.clone()
    share = _blocks(codes.float() / 127, scale)
    return (share.square().square() * share.sign() * scale[..., None]).flatten(-2)


def _write_first(m: Tensor, codes: Tensor, scale: Tensor | None, draws: Tensor) -> None:
    if scale is None:
        codes.copy_(m)
        return
    share = _shares(m.abs(), scale)
    below = (share.sqrt().sqrt() * 127).floor_().clamp_(0, 126)
    least, next_ = ((some / 127).square().square() for some in (below, below + 1))
    codes.copy_((below + (draws * (next_ - least) < share - least)) * m.sign())


def _read_second(codes: Tensor, scale: Tensor | None) -> Tensor:
    if scale is None:
        return codes.clone()
    share = _blocks(codes.float() / 255, scale)
    return (share.square().square().square() * scale[..., None]).flatten(-2)


def _write_second(v: Tensor, codes: Tensor, scale: Tensor | None, draws: Tensor) -> None:
    if scale is None:
        codes.copy_(v)
        return
    share = _shares(v, scale)
    below = (share.sqrt().sqrt().sqrt() * 255).floor_().clamp_(1, 254)
    least, next_ = ((some / 255).square().square().square() for some in (below, below + 1))
    codes.copy_(below + (draws * (next_ - least) < share - least))


def _shares(moment: Tensor, scale: Tensor) -> Tensor:
    """The moment, which is not negative, over the largest number of each block, which becomes its scale."""
    blocks = _blocks(moment, scale)
    scale.copy_(blocks.amax(-1))
    return (blocks / scale[..., None].clamp_min(TINY)).flatten(-2)


def _blocks(numbers: Tensor, scale: Tensor) -> Tensor:
    """[rows, blocks, width]; ``view`` takes -1 for no rows at all, which a rank may hold, for ambiguous."""
    rows, blocks = scale.shape
    return numbers.view(rows, blocks, numbers.shape[-1] // blocks)


def _chunks(tensors: list[Tensor | None]) -> Iterator[list[Any]]:
    """The tensors in parts of about ``CHUNK`` numbers of the first, as matrices; only what this rank holds of them."""
    rows = [None if tensor is None else _rows(tensor) for tensor in tensors]
    weights = rows[0]
    assert weights is not None
    step = max(1, (CPU_CHUNK if weights.device.type == "cpu" else CHUNK) // max(1, weights.shape[1]))
    for begin in range(0, weights.shape[0], step):
        yield [None if some is None else some[begin : begin + step] for some in rows]


def _rows(tensor: Tensor) -> Tensor:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.view(1, -1) if local.ndim < 2 else local.view(-1, local.shape[-1])


def _zeros(parameter: Tensor, shape: Iterable[int], dtype: torch.dtype) -> Tensor:
    """On the parameter's device, split by rows as it is."""
    if isinstance(parameter, DTensor):
        found: Tensor = zeros(
            *shape, dtype=dtype, device_mesh=parameter.device_mesh, placements=list(parameter.placements)
        )
        return found
    return torch.zeros(*shape, dtype=dtype, device=parameter.device)
