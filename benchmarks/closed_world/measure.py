"""What a cell of the experiment reports: figures of the answers, and how far the policy is from the reference."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks.closed_world.judge import MALFORMED, REPEATED
from maskdpo.evaluate.factuality import summarise
from maskdpo.schemas import Annotation, Pair, Prompt
from maskdpo.verdicts.mix import mix_of

Figures = dict[str, float]

FROM_EVALUATE = {
    "right": "right sentences / answer",
    "wrong": "wrong sentences / answer",
    "no_fact": "no-fact sentences / answer",
    "right_of_all": "right / all sentences",
    "cut_off": "answers cut off",
    "characters": "characters / answer",
}
"""Our names for what ``evaluate`` reports. ``wrong`` includes the repeated and the malformed ones."""

FROM_MIX = {
    "wrong_of_chosen": "wrong_of_chosen",
    "right_of_rejected": "right_of_rejected",
    "tokens_left_out": "left_out",
    "margin": "margin",
    "sentences_of_pair": "sentences_per_answer",
}
"""Our names for the figures of ``maskdpo.verdicts.mix.Mix``."""

ROWS = 256


def figures(annotations: Sequence[Annotation], prompts: Mapping[str, Prompt]) -> Figures:
    """Means an answer; ``right_of_all`` is a share of all sentences, and 0 where there are none."""
    summary = summarise(annotations, prompts)
    reasons = Counter(sentence.reason for annotation in annotations for sentence in annotation.sentences)
    answers = len(annotations)
    found = {ours: summary.figures[theirs].value for ours, theirs in FROM_EVALUATE.items()}
    if math.isnan(found["right_of_all"]):  # a collapsed model: every answer is one torn sentence, which is in no count
        found["right_of_all"] = 0.0
    return found | {
        "sentences": sum(len(annotation.sentences) for annotation in annotations) / answers,
        "malformed": reasons[MALFORMED] / answers,
        "repeated": reasons[REPEATED] / answers,
        "tokens": sum(len(annotation.response.split()) for annotation in annotations) / answers,
    }


def mix(pairs: Sequence[Pair]) -> Figures:
    """How much the masks have to leave out: shares of sentences, and of the tokens of both answers."""
    found = mix_of(pairs, size=_words)
    return {"pairs": len(pairs)} | {ours: getattr(found, theirs) for ours, theirs in FROM_MIX.items()}


def _words(text: str) -> int:
    """Words are the tokens of these models."""
    return len(text.split())


@torch.inference_mode()
def divergence(answers: Sequence[Annotation], prompts: Mapping[str, Prompt], policy: Path, reference: Path) -> float:
    """Mean of log pi(y) - log pi_ref(y) over answers y of the policy at temperature 1: an unbiased estimate of the
    KL divergence, in nats an answer."""
    tokenizer = AutoTokenizer.from_pretrained(policy)
    models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (policy, reference)]
    total = 0.0
    for start in range(0, len(answers), ROWS):
        rows = answers[start : start + ROWS]
        asked = [tokenizer(prompts[row.prompt_id].question)["input_ids"] for row in rows]
        texts = [_whole(row, prompts, tokenizer.eos_token) for row in rows]
        ids_RT = tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
        counts_RT = (ids_RT != tokenizer.pad_token_id).float()
        for row, prompt_ids in enumerate(asked):
            counts_RT[row, : len(prompt_ids)] = 0
        after, before = (_logps(model, ids_RT) for model in models)
        total += float(((after - before) * counts_RT[:, 1:]).sum())
    return total / len(answers)


def _whole(answer: Annotation, prompts: Mapping[str, Prompt], end: str) -> str:
    text = f"{prompts[answer.prompt_id].question} {answer.response.strip()}"
    return f"{text} {end}" if answer.finish_reason == "stop" else text


def _logps(model: PreTrainedModel, ids_RT: Tensor) -> Tensor:
    """[R, T - 1] log-probs of all tokens but the first. Padding on the right is not seen by what stands before it."""
    logps_RTV = model(input_ids=ids_RT).logits[:, :-1].float().log_softmax(-1)
    picked_RT: Tensor = logps_RTV.gather(2, ids_RT[:, 1:, None])[..., 0]
    return picked_RT
