"""What the device is, and whether log-probs, loss and gradient on it are those of float64."""

import platform
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import transformers
from gpu_parts import DEVICE, ON_GPU, TINY, llama, random_pairs, row, seconds_of
from torch import Tensor
from transformers import PreTrainedModel

from maskdpo.train.data.batch import collate
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.losses import masked_log_ratios, sum_per_answer
from maskdpo.train.model.flex import Heads, kernel_problem, use_flex_attention
from maskdpo.train.model.logps import token_logps

BETA = 0.1


def device(small: bool) -> Iterator[dict[str, Any]]:
    yield row(
        "Python, torch, transformers", f"{platform.python_version()}, {torch.__version__}, {transformers.__version__}"
    )
    if ON_GPU:
        props = torch.cuda.get_device_properties(0)
        yield row("device", f"{props.name}, {props.total_memory / 1e9:.0f} GB, {props.multi_processor_count} units")
        yield row("CUDA, capability", f"{torch.version.cuda}, {props.major}.{props.minor}")
        yield row("driver", _driver())
    else:
        yield row("device", f"{platform.machine()} CPU, {torch.get_num_threads()} threads")
    side = 512 if small else 8192
    for dtype in (torch.bfloat16, torch.float32):
        a = torch.randn(side, side, device=DEVICE, dtype=dtype)
        seconds = seconds_of(lambda a=a: a @ a, 5)
        yield row(f"products of {side} x {side}, {dtype}, TFLOP/s", 2 * side**3 / seconds / 1e12)


def _driver() -> str:
    import subprocess

    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"


def exact(small: bool) -> Iterator[dict[str, Any]]:
    """Rows of several lengths of a random model, against two plain passes per pair in float64."""
    size = (
        TINY if small else TINY | {"hidden_size": 512, "num_attention_heads": 8, "head_dim": 64, "num_hidden_layers": 4}
    )
    settings = size | {"initializer_range": 0.1}
    lengths = [(3, 4, 2), (40, 30, 70), (60, 130, 90)] + ([] if small else [(100, 400, 400), (300, 700, 640)])
    pairs = random_pairs(lengths, size["vocab_size"])
    model = llama(**settings).double()
    truth = _plain(model, pairs)
    heads = Heads(size["num_attention_heads"], size["num_key_value_heads"], size["head_dim"], size["head_dim"])
    for dtype in (torch.float32, torch.bfloat16) if ON_GPU else ():
        problem = kernel_problem(heads, DEVICE, dtype)
        yield {"what": f"FlexAttention, {dtype}", "found": problem or "agrees", "limit": "", "ok": not problem}
        wide = kernel_problem(Heads(4, 2, 256, 256), DEVICE, dtype)  # may be too large; such models take SDPA
        yield row(f"FlexAttention, {dtype}, heads of 256", wide or "agrees")
    far: dict[str, float] = {}
    for compute, largest, apart in ((torch.float32, 2e-3, 1e-3), (torch.bfloat16, 1.0, 0.1)):
        # PyTorch has no gradients of FlexAttention on a CPU
        for name, use in (("SDPA", lambda model: None), *((("flex", use_flex_attention),) if ON_GPU else ())):
            found = _shared(llama(**settings), pairs, use, compute)
            kind = f"{name}, {str(compute).removeprefix('torch.')}"
            yield row(f"{kind}: log-probs, largest difference", float((found[0] - truth[0]).abs().max()), largest)
            yield row(f"{kind}: Mask-DPO loss, difference", float((found[1] - truth[1]).abs()), largest / 10)
            far[kind] = float((found[2] - truth[2]).norm() / truth[2].norm())
            yield row(f"{kind}: gradient, relative difference", far[kind], apart)
    if ON_GPU:
        ratio = far["flex, bfloat16"] / far["SDPA, bfloat16"]
        yield row("bfloat16 gradient's error, flex / SDPA", ratio, 1.3)


def _loss(logps_N: Tensor, batch: Any) -> Tensor:
    """Mask-DPO, summed over pairs, against a reference whose log-probs are -1 everywhere; log ratios per token, so that
    the loss of random models is neither 0 nor huge."""
    answers = 2 * batch.pairs
    ratio_A = masked_log_ratios(logps_N, -torch.ones_like(logps_N), batch.weight_N, batch.answer_N, answers)
    ratio_A = ratio_A / sum_per_answer(batch.weight_N, batch.answer_N, answers)
    return -torch.nn.functional.logsigmoid(BETA * (ratio_A[0::2] - ratio_A[1::2])).sum()


Found = tuple[Tensor, Tensor, Tensor]
"""Log-probs of the tokens with weight, loss, and the gradient of all weights; all in float64."""


def _shared(
    model: PreTrainedModel, pairs: list[EncodedPair], use: Callable[[Any], None], compute: torch.dtype
) -> Found:
    use(model)
    batch = collate(pairs, "shared").to(DEVICE)
    with torch.autocast(DEVICE, compute) if compute != torch.float32 else nullcontext():
        logps_N = token_logps(model, batch)
    return _with_gradient(model, logps_N, _loss(logps_N, batch))


def _plain(model: PreTrainedModel, pairs: list[EncodedPair]) -> Found:
    """One answer at a time, without a mask, padding or anything of ours but the order of the tokens."""
    parts, losses = [], []
    for pair in pairs:
        ratios = []
        for side in (pair.chosen, pair.rejected):
            ids = torch.tensor([[*pair.prompt_ids, *side.ids]], device=DEVICE)
            logits_TV = model(input_ids=ids, use_cache=False).logits[0, len(pair.prompt_ids) - 1 : -1]
            picked_T = logits_TV.log_softmax(1).gather(1, ids[0, len(pair.prompt_ids) :, None])[:, 0]
            parts.append(picked_T[torch.from_numpy(side.weights > 0).to(DEVICE)])
            ratios.append((parts[-1] + 1).mean())
        losses.append(-torch.nn.functional.logsigmoid(BETA * (ratios[0] - ratios[1])))
    return _with_gradient(model, torch.cat(parts), torch.stack(losses).sum())


def _with_gradient(model: PreTrainedModel, logps_N: Tensor, loss: Tensor) -> Found:
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
    return logps_N.detach().double(), loss.detach().double(), gradient
