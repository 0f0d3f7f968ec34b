"""The columns of the matrix. A check returns the words of its cell; it raises ``UserError`` where maskdpo refuses, and
anything else, a wrong number above all, is a failure of the test."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from bench import BATCH, BETA, LR, STEPS, Bench, Run, rows
from peft import PeftModel
from plain import Step, all_logps, load_plain, train_plainly
from safetensors.torch import load_file

from maskdpo.backends.base import Reply, Request, Sampling
from maskdpo.backends.decode import pick
from maskdpo.backends.settings import BackendSettings
from maskdpo.backends.transformers_backend import TransformersBackend, _random
from maskdpo.errors import UserError
from maskdpo.schemas import SIDES, Message
from maskdpo.schemas.training import StepStats
from maskdpo.train.data.encoded_pair import EncodedPair

EXACT = 1e-4
"""Nats that a log-prob of a token may be off: float32 is rounded, and nothing else is different."""

CLOSE = 1e-3
"""What is left of it behind AdamW's first step, which makes of a gradient's rounding a step of full size."""

PROMPTS = ("Hi.", "Tell me about Paris and the river.", "Is Tokyo the capital of Japan? " * 4)
TOKENS = 12
NEAR = 5e-6
"""Of a probability: some ten times the rounding of float32."""
SAMPLES = 4


def exact(differences: Iterable[float]) -> str:
    largest = max(differences)
    assert largest < EXACT, f"a log-prob is off by {largest:.3g} nats"
    return "exact"


def whole(bench: Bench) -> str:
    """Log-probs before training, both steps, and the folder that is written."""
    run = bench.whole
    model = copy.deepcopy(bench.plain)
    word = exact(_differences(run, bench))
    _compare_steps(run, model, bench.pairs)
    _compare_after(run, load_plain(str(run.out)), bench.pairs)
    return word


def lora(bench: Bench) -> str:
    """The same with an adapter, which is written alone after one step and merged after two."""
    start = bench.lora_start
    _compare_after(start, PeftModel.from_pretrained(copy.deepcopy(bench.plain), str(start.out)), bench.pairs)
    model = PeftModel.from_pretrained(copy.deepcopy(bench.plain), str(start.out), is_trainable=True)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(parameter)
    run = bench.train("lora", lora_r=4, lora_alpha=8)
    word = exact(_differences(run, bench))
    _compare_steps(run, model, bench.pairs)
    _compare_after(run, load_plain(str(run.out)), bench.pairs)
    return word


def checkpointing(bench: Bench) -> str:
    """The same figures."""
    _compare_metrics(bench.train("checkpointing", gradient_checkpointing=True).metrics, bench.whole.metrics)
    return "exact"


def resume(bench: Bench) -> str:
    """Stopped after its first step and taken up again: the same bits."""
    expected = bench.whole
    bench.train_apart("resumed", codes=[2], plan=["after-step", 1, "SIGINT"])
    out = bench.train_apart("resumed", codes=[0])
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, expected.out))
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    return "same bits"


def two_ranks(bench: Bench) -> str:
    """The figures of one process, and its model."""
    expected = bench.whole
    out = bench.train_apart("ranks", codes=[0, 0], ranks=2)
    _compare_metrics(rows(out / "metrics.jsonl"), expected.metrics)
    _compare_after(expected, load_plain(str(out)), bench.pairs)
    return "exact"


def sampling(bench: Bench) -> str:
    """Four samples of each prompt, each as if drawn without a cache and without padding; and greedy, as transformers
    does it."""
    backend = TransformersBackend(bench.model, BackendSettings(dtype="float32"))
    for temperature in (1.0, 0.0):
        replies = backend.generate(_requests(temperature))
        for reply in replies:
            if reply.failure is not None:
                raise UserError(reply.failure.message)
            expected = _expected_texts(bench, reply, temperature)
            found = [completion.text for completion in reply.completions]
            same = [_same(a, b) for a, b in zip(found, expected, strict=True)]
            assert all(same), f"prompt {reply.key} at temperature {temperature}: equal are {same}"
    return "exact"


CHECKS: dict[str, Callable[[Bench], str]] = {
    "sampling": sampling,
    "whole": whole,
    "lora": lora,
    "checkpointing": checkpointing,
    "resume": resume,
    "two ranks": two_ranks,
}


def _differences(run: Run, bench: Bench) -> list[float]:
    assert run.reference.keys() == bench.plain_logps.keys()
    return [float((run.reference[key] - logps).abs().max()) for key, logps in bench.plain_logps.items()]


def _compare_steps(run: Run, model: object, pairs: list[EncodedPair]) -> None:
    expected = train_plainly(model, pairs, lr=LR, beta=BETA, batch_size=BATCH, steps=STEPS)
    for row, step in zip(run.metrics, expected, strict=True):
        allowed = EXACT if row["step"] == 1 else CLOSE
        _compare_sums(row, step, allowed, pairs)
        assert abs(row["loss"] - step.loss) < allowed, f"step {row['step']}: loss {row['loss']}, not {step.loss}"


def _compare_sums(row: dict[str, float], step: Step, allowed: float, pairs: list[EncodedPair]) -> None:
    """Sums over the answers' tokens, so that as many roundings add up."""
    for side in SIDES:
        tokens = max(len(pair.side(side).ids) for pair in pairs)
        off = abs(row[f"logps_{side}"] - getattr(step, f"logps_{side}"))
        assert off < allowed * tokens, f"the {side} answers' log-probs are off by {off:.3g} nats"


def _compare_after(run: Run, model: object, pairs: list[EncodedPair]) -> None:
    """The model that was written against the policy that was trained."""
    logps = all_logps(model, pairs)
    for k, side in enumerate(SIDES):
        sums = [
            float(torch.from_numpy(pair.side(side).weights).double() @ logps[pair.id].split(_lengths(pair))[k])
            for pair in pairs
        ]
        off = abs(run.after[f"logps_{side}"] - float(np.mean(sums)))
        tokens = max(len(pair.side(side).ids) for pair in pairs)
        assert off < EXACT * tokens, f"as written, the {side} answers' log-probs are off by {off:.3g} nats"


def _lengths(pair: EncodedPair) -> list[int]:
    return [len(pair.side(side).ids) for side in SIDES]


def _compare_metrics(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    names = ("loss", "logps_chosen", "logps_rejected", "margin", "grad_norm")
    assert set(names) <= set(StepStats.model_fields)
    assert len(ours) == len(theirs) == STEPS
    for mine, other in zip(ours, theirs, strict=True):
        for name in names:
            allowed = CLOSE * max(1.0, abs(other[name]))
            off = abs(mine[name] - other[name])
            assert off < allowed, f"step {mine['step']}: {name} is off by {off:.3g}"


def _requests(temperature: float) -> list[Request]:
    decoding = Sampling(max_tokens=TOKENS, temperature=temperature, n=SAMPLES)
    return [Request(i, [Message(role="user", content=prompt)], sampling=decoding) for i, prompt in enumerate(PROMPTS)]


@dataclass(frozen=True)
class Expected:
    text: str
    whole: bool
    """Whether no draw fell so near to the border of two tokens that rounding decides."""


def _same(found: str, expected: Expected) -> bool:
    return found == expected.text if expected.whole else found.startswith(expected.text.rstrip("\ufffd"))


@torch.no_grad()
def _expected_texts(bench: Bench, reply: Reply, temperature: float) -> list[Expected]:
    tokenizer = bench.tokenizer
    prompt = PROMPTS[int(str(reply.key))]
    ids = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)["input_ids"]
    if temperature == 0:
        longer = bench.plain.generate(torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False)
        return [_expected(longer[0, len(ids) :].tolist(), [], tokenizer)] * SAMPLES
    randoms = [_random(0, reply.key, sample) for sample in range(SAMPLES)]
    rows_RT = torch.tensor([ids] * SAMPLES)  # of equal length, and what stands behind an end is cut
    near_TR = []
    for _ in range(TOKENS):
        uniform_R = torch.tensor([random.random() for random in randoms], dtype=torch.float64)
        logits_RV = bench.plain(input_ids=rows_RT, use_cache=False).logits[:, -1].double()
        borders_RV = logits_RV.softmax(-1).cumsum(-1)
        near_TR.append((borders_RV - uniform_R[:, None]).abs().amin(1) < NEAR)
        rows_RT = torch.cat([rows_RT, pick(logits_RV, uniform_R, temperature, 1.0)[:, None]], 1)
    near_RT = torch.stack(near_TR, 1).tolist()
    return [_expected(row[len(ids) :], near, tokenizer) for row, near in zip(rows_RT.tolist(), near_RT, strict=True)]


def _expected(ids: list[int], near: list[bool], tokenizer: Any) -> Expected:
    end = ids.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in ids else len(ids)
    doubtful = near.index(True) if True in near[: end + 1] else len(ids)
    text = tokenizer.decode(ids[: min(end, doubtful)], skip_special_tokens=True)
    return Expected(str(text), doubtful > end or doubtful == len(ids))
