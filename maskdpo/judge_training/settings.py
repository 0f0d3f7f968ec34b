"""The settings of ``maskdpo train-judge``."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from maskdpo.devices import Dtype
from maskdpo.settings import DEVICE_HELP, INPUT, MODEL_HELP, Option, Settings, several

DATA = "Data: what the judge learns from"
INPUTS = "What the model reads"
OPTIMISER = "Optimisation"
LORA = "LoRA: train a small adapter, which is merged into the weights at the end"
HELD_OUT = "Held-out topics"
EXPORT = "The trained judge"
SPEED = "Speed and memory"

Positive = Field(gt=0, allow_inf_nan=False)
Count = Field(ge=1)

ClassSet = Literal["auto", "four", "three", "two"]


class TrainJudgeConfig(Settings):
    """Every setting that changes the result. A run resumes only with the same ones."""

    model: Annotated[str, Option(f"The base: an encoder, or a decoder language model. {MODEL_HELP}")]
    weights: Annotated[
        tuple[Annotated[float, Positive], ...],
        Field(alias="weight"),
        Option(
            "Factor on the loss of the rows of a file; given once for each LABELLED, in their order. [default: 1]", DATA
        ),
    ] = ()
    soft: Annotated[
        bool,
        Option(
            "Where a sentence has `scores`, learn these probabilities (distillation); or learn the label alone.",
            DATA,
            flags="--soft/--hard",
        ),
    ] = True
    classes: Annotated[
        ClassSet,
        Option(
            "What the judge tells apart. `four`: right, contradictory, unverifiable, no fact; `three`: right, wrong, "
            "no fact; `two`: right, wrong. `auto`: what the data has.",
            DATA,
        ),
    ] = "auto"
    augment: Annotated[
        float,
        Field(ge=0, le=1),
        Option(
            "Share of the right sentences that are there a second time, with a number, a date or a name changed, as "
            "wrong ones.",
            DATA,
        ),
    ] = 0.0
    heldout: Annotated[
        float,
        Field(ge=0, le=0.5),
        Option("Share of the topics that are not trained on: they choose the best weights and calibrate.", HELD_OUT),
    ] = 0.1
    heldout_most: Annotated[
        int,
        Field(ge=20),
        Option("No further topics are held out once so many sentences are: every evaluation reads them all.", HELD_OUT),
    ] = 400
    best_by: Annotated[
        Literal["loss", "auroc"], Option("What is best on the held-out topics, and worth keeping.", HELD_OUT)
    ] = "loss"
    eval_every: Annotated[
        int | None, Count, Option("Steps between evaluations. [default: two in a pass over the rows]", HELD_OUT)
    ] = None
    patience: Annotated[
        int, Field(ge=0), Option("Stop after so many evaluations without a better one; 0: never.", HELD_OUT)
    ] = 3
    passage_words: Annotated[
        int, Field(ge=20), Option("Length of the passage of the reference that the model reads.", INPUTS)
    ] = 150
    passages: Annotated[
        int,
        Count,
        Option(
            "Passages per sentence that the judge scores; the one that supports the sentence most counts. Training "
            "reads the best one by BM25.",
            INPUTS,
        ),
    ] = 2
    preceding: Annotated[
        int,
        Field(ge=0),
        Option("Sentences of the answer before the judged one that the model reads too, because of pronouns.", INPUTS),
    ] = 0
    max_length: Annotated[int, Field(ge=32), Option("Longest input in tokens; the passage is cut.", INPUTS)] = 512
    lr: Annotated[
        float | None,
        Positive,
        Option("Peak learning rate of AdamW. [default: 2e-5, with LoRA 2e-4]", OPTIMISER),
    ] = None
    schedule: Annotated[
        Literal["linear", "cosine"], Option("How the learning rate falls to zero after the warm-up.", OPTIMISER)
    ] = "linear"
    warmup_ratio: Annotated[
        float, Field(ge=0, le=1), Option("Share of the steps over which the learning rate rises.", OPTIMISER)
    ] = 0.06
    weight_decay: Annotated[float, Field(ge=0), Option("Weight decay of AdamW, on matrices only.", OPTIMISER)] = 0.01
    max_grad_norm: Annotated[float, Positive, Option("Longer gradients are scaled down to this.", OPTIMISER)] = 1.0
    batch_size: Annotated[int, Count, Option("Sentences per optimiser step.", OPTIMISER)] = 32
    epochs: Annotated[int, Count, Option("Passes over the sentences.", OPTIMISER)] = 2
    max_steps: Annotated[int | None, Count, Option("At most this many optimiser steps.", OPTIMISER)] = None
    last_layers: Annotated[
        int, Field(ge=0), Option("Train only so many of the last layers, and the head; 0: all layers.", OPTIMISER)
    ] = 0
    seed: Annotated[
        int, Field(ge=0), Option("Seed of the held-out topics, the changes, the order and dropout.", OPTIMISER)
    ] = 0
    lora_r: Annotated[int, Field(ge=0), Option("Rank of the adapter; 0 trains the weights themselves.", LORA)] = 0
    lora_alpha: Annotated[int, Count, Option("What the adapter adds is scaled by alpha / rank.", LORA)] = 32
    lora_dropout: Annotated[float, Field(ge=0, lt=1), Option("Dropout in front of the adapter.", LORA)] = 0.0
    dtype: Annotated[
        Dtype,
        Option("Compute type; `auto`: bfloat16 where the hardware computes in it. Weights stay float32.", SPEED),
    ] = "auto"
    tokens_per_batch: Annotated[int, Count, Option("Tokens per forward pass: memory against speed.", SPEED)] = 4096

    @property
    def peak_lr(self) -> float:
        return self.lr if self.lr is not None else 2e-4 if self.lora_r else 2e-5

    @model_validator(mode="after")
    def _no_settings_of_an_adapter_without_one(self) -> Self:
        for name in ("lora_alpha", "lora_dropout"):
            if not self.lora_r and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` goes with `lora_r`")
        return self


class TrainJudgeSettings(TrainJudgeConfig):
    """What ``maskdpo train-judge`` can be told."""

    labelled: Annotated[
        tuple[Path, ...],
        Field(min_length=1),
        several("annotations"),
        Option(
            f"Annotation records, people's or a judge's; the rows of several files are mixed: {INPUT}.",
            argument=True,
            metavar="LABELLED...",
        ),
    ]
    prompts: Annotated[
        tuple[Path, ...],
        Field(min_length=1),
        several("prompts"),
        Option(
            "Prompt records with references: given once for all files, or once for each LABELLED, in their order.",
            metavar="PROMPTS",
        ),
    ]
    out: Annotated[Path, Option("Folder for the judge: a model folder with its classifier.yaml.")]
    calibration: Annotated[
        Path | None,
        Option("Learn the scores as this calibration (`maskdpo calibrate`) corrects them, not as they are.", DATA),
    ] = None
    eval_file: Annotated[
        Path | None,
        Field(alias="eval"),
        Option("Gold annotations that the finished judge is measured on.", HELD_OUT, metavar="GOLD"),
    ] = None
    eval_prompts: Annotated[
        Path | None, Option("Their prompts, where `--prompts` does not have them.", HELD_OUT, metavar="PROMPTS")
    ] = None
    licence_notes: Annotated[
        tuple[str, ...],
        Field(alias="licence_note"),
        Option("A line for the card, such as the licence of the data; repeat the option for more.", EXPORT),
    ] = ()
    push: Annotated[
        str | None,
        Option("Send the judge to the Hub, as a private model: `user/name`, or `name`.", EXPORT, metavar="NAME"),
    ] = None
    restart: Annotated[bool, Option("Set an earlier run aside (.bak) and begin anew.")] = False
    device: Annotated[str | None, Option(DEVICE_HELP, SPEED)] = None
    save_every: Annotated[int, Field(ge=0), Option("Steps between checkpoints; 0: none.", SPEED)] = 50

    @model_validator(mode="after")
    def _as_many_as_files(self) -> Self:
        files = len(self.labelled)
        if self.weights and len(self.weights) != files:
            raise ValueError(f"`weights`: {len(self.weights)} for {files} files; give one for each, in their order")
        if len(self.prompts) not in (1, files):
            raise ValueError(
                f"`prompts`: {len(self.prompts)} for {files} files; give one for all, or one for each, in their order"
            )
        if self.eval_prompts and not self.eval_file:
            raise ValueError("`eval_prompts` goes with `eval_file`")
        return self

    def config(self) -> TrainJudgeConfig:
        """What decides the result, alone."""
        return TrainJudgeConfig(**{name: getattr(self, name) for name in TrainJudgeConfig.model_fields})
