"""The settings of ``maskdpo train`` as options: one for every field of ``TrainConfig``, in panels.

They are None where they are not given, so that a value in the config file counts; ``TrainConfig`` has the defaults, and
checks values. A test holds the two together.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from maskdpo.cli.options import DEVICE_HELP, INPUT
from maskdpo.io import with_config

IN_AND_OUT = "Input and output"
METHOD = "Method: which tokens count"
LOSS = "Loss: what is made of them"
OPTIMISER = "Optimisation"
LORA = "LoRA: train a small adapter instead of all weights"
SPEED = "Speed and memory (the result stays the same, but for rounding)"
LOGGING = "Logging and checkpoints"
EVAL = "Held-out pairs"
EXPORT = "The trained model"

Method = Literal["mask-dpo", "dpo", "chosen-only", "rejected-only", "strict", "soft"]
Eos = Literal["keep", "last_sentence", "drop"]
Reasoning = Literal["keep", "drop"]
Loss = Literal["sigmoid", "ipo", "hinge", "conservative", "robust", "simpo", "sigmoid-norm", "ld-dpo", "fdpo-margin"]

METHOD_HELP = (
    "`mask-dpo`: right sentences of the chosen answer, wrong ones of the rejected answer. `dpo`: all. `chosen-only`, "
    "`rejected-only`: that side is masked, the other one counts in full. `strict`: mask-dpo, but sentences without a "
    "fact count as wrong. `soft`: mask-dpo, times the label's confidence."
)
LOSS_HELP = (
    "`sigmoid`: DPO. `sigmoid-norm`: log ratios a token. `ipo`, `hinge`: other shapes. `conservative` (cDPO), `robust` "
    "(rDPO): some pairs are the wrong way round. `simpo`: without a reference; wants `--beta` 2 or more. `ld-dpo`: "
    "less weight on what only the longer answer has. `fdpo-margin`: a margin from the pair's scores."
)


def _in(panel: str, help: str, default: str = "", *, name: str | None = None) -> Any:
    names = [name] if name else []
    return typer.Option(*names, help=f"{help} [default: {default}]" if default else help, rich_help_panel=panel)


@dataclass(frozen=True)
class TrainFlags:
    """What ``train`` can be told about a run; see ``maskdpo.train.config.TrainConfig``."""

    model: Annotated[str | None, _in(IN_AND_OUT, "`smollm2`, a model folder, or a Hub id.")] = None
    method: Annotated[Method | None, _in(METHOD, METHOD_HELP, "mask-dpo")] = None
    eos: Annotated[
        Eos | None,
        _in(METHOD, "The end-of-turn token: always trained, as its last sentence is, or never.", "keep"),
    ] = None
    max_length: Annotated[
        int | None, _in(METHOD, "Longest prompt and answer in tokens; answers are cut at their end.", "2048")
    ] = None
    reasoning: Annotated[
        Reasoning | None,
        _in(METHOD, "What a reasoning model wrote before its answer: kept with weight 0, or left out.", "keep"),
    ] = None
    template_option: Annotated[
        list[str] | None,
        _in(
            METHOD,
            "KEY=VALUE for the chat template, as in `sample`; for pairs that do not record what theirs was told.",
        ),
    ] = None
    loss: Annotated[Loss | None, _in(LOSS, LOSS_HELP, "sigmoid")] = None
    beta: Annotated[float | None, _in(LOSS, "Pull towards the reference model.", "0.1")] = None
    label_smoothing: Annotated[
        float | None, _in(LOSS, "conservative, robust: share of pairs that are the wrong way round.", "0.1")
    ] = None
    simpo_gamma: Annotated[float | None, _in(LOSS, "simpo: margin that the chosen answer must win by.", "0.5")] = None
    ld_alpha: Annotated[
        float | None, _in(LOSS, "ld-dpo: factor on tokens beyond the length of the shorter answer.", "0.5")
    ] = None
    margin_gamma: Annotated[
        float | None, _in(LOSS, "fdpo-margin: nats that a score higher by 1 must win by.", "10.0")
    ] = None
    sft_weight: Annotated[
        float | None, _in(LOSS, "Any loss: add this times the chosen answer's masked NLL a token.", "0.0")
    ] = None
    lr: Annotated[float | None, _in(OPTIMISER, "Peak learning rate of AdamW.", "1e-06")] = None
    warmup_ratio: Annotated[
        float | None, _in(OPTIMISER, "Share of the steps over which the rate rises; then it falls to zero.", "0.1")
    ] = None
    weight_decay: Annotated[float | None, _in(OPTIMISER, "Of AdamW, on matrices only.", "0.0")] = None
    max_grad_norm: Annotated[float | None, _in(OPTIMISER, "Longer gradients are scaled down to this.", "1.0")] = None
    batch_size: Annotated[int | None, _in(OPTIMISER, "Pairs an optimiser step.", "16")] = None
    epochs: Annotated[int | None, _in(OPTIMISER, "Passes over the pairs.", "1")] = None
    max_steps: Annotated[int | None, _in(OPTIMISER, "Stop after this many optimiser steps.")] = None
    seed: Annotated[int | None, _in(OPTIMISER, "Order of the pairs.", "0")] = None
    lora_r: Annotated[int | None, _in(LORA, "Rank; 0 trains all weights.", "0")] = None
    lora_alpha: Annotated[int | None, _in(LORA, "The adapter counts alpha / rank times.", "32")] = None
    lora_dropout: Annotated[float | None, _in(LORA, "Dropout in front of the adapter.", "0.0")] = None
    lora_targets: Annotated[
        str | None, _in(LORA, "Layers: all but lm_head, or names such as `q_proj,v_proj`.", "all-linear")
    ] = None
    merge: Annotated[
        bool | None,
        _in(
            LORA,
            "Write the whole model with the adapter in it, or the adapter alone.",
            "True",
            name="--merge/--no-merge",
        ),
    ] = None
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"] | None,
        _in(SPEED, "Compute type; `auto`: bfloat16 where the hardware computes in it. Weights stay float32.", "auto"),
    ] = None
    tokens_per_batch: Annotated[int | None, _in(SPEED, "Tokens a forward pass: memory against speed.", "2048")] = None
    gradient_checkpointing: Annotated[
        bool | None,
        _in(SPEED, "Recompute activations: about a third slower, far less memory.", name="--gradient-checkpointing"),
    ] = None
    compile: Annotated[
        bool | None,
        _in(
            SPEED,
            "Let torch.compile fuse each layer's operations: less memory, half a minute at the start.",
            "False",
            name="--compile",
        ),
    ] = None
    log_masked_every: Annotated[
        int | None,
        _in(LOGGING, "Steps between looks at the rewards of masked tokens, a forward pass each; 0: none.", "10"),
    ] = None
    eval_every: Annotated[
        int | None, _in(EVAL, "Steps between looks at them; also before the first and after the last step.", "100")
    ] = None
    keep_best: Annotated[
        bool | None,
        _in(EVAL, "Write the weights with the lowest loss on them, not the last.", "False", name="--keep-best"),
    ] = None
    export_dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        _in(EXPORT, "Type of its weights; bfloat16 rounds small updates away.", "float32"),
    ] = None
    trust_remote_code: Annotated[
        bool | None, _in(IN_AND_OUT, "Run code from the model's repository.", "False", name="--trust-remote-code")
    ] = None


# What changes nothing of the trained weights, and so is no field of ``TrainConfig``.


def _option(panel: str, help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


Out = Annotated[Path, _option(IN_AND_OUT, "Folder for the trained model (Hugging Face format).")]
ConfigFile = Annotated[
    Path | None, _option(IN_AND_OUT, "YAML file with settings, such as `lr: 1e-6`; flags override it.")
]
Restart = Annotated[bool, _option(IN_AND_OUT, "Set an earlier run aside (.bak) and begin anew.", "--restart")]
DryRun = Annotated[
    bool, _option(IN_AND_OUT, "Only show what the run would do, need and take; nothing is written.", "--dry-run")
]
EvalPairs = Annotated[
    Path | None,
    _option(
        EVAL,
        f"Held-out pairs, such as `pairs.test.jsonl`: {INPUT}.",
        parser=lambda name: with_config(Path(name), "pairs"),
        metavar="PAIRS",
    ),
]
ShowAnswers = Annotated[
    int, _option(EVAL, "Held-out prompts that are answered at every look; also in answers.jsonl.", min=0)
]
Cache = Annotated[bool, _option(SPEED, "Keep the reference log-probs on disk for the next run.")]
Device = Annotated[str | None, _option(SPEED, DEVICE_HELP)]
Nproc = Annotated[
    int,
    _option(
        SPEED,
        "Processes on this machine, one a GPU, that share model and pairs; several machines: `torchrun`, see "
        "docs/scale.md.",
        min=1,
    ),
]
SaveEvery = Annotated[int, _option(LOGGING, "Optimiser steps between checkpoints; 0: none.", min=0)]
Keep = Annotated[int, _option(LOGGING, "Newest checkpoints to keep.", min=1)]
Track = Annotated[
    Literal["tensorboard", "wandb", "trackio"] | None,
    _option(LOGGING, "Send the figures there, too; metrics.jsonl and curves.png are always written."),
]
Push = Annotated[
    str | None,
    _option(EXPORT, "Send it to the Hub, as a private model: `user/name`, or `name` for your own account.",
            metavar="NAME"),
]  # fmt: skip
