"""Mask-DPO training in plain PyTorch; the formulas are in docs/method.md.

data/       a pairs file to token ids with weights, and to batches
model/      the model that is trained, and its log-probs
losses.py   the losses
step.py     one training step: forward pass, loss, backward pass, AdamW
run/        a whole run: all steps, checkpoints, figures, the written model
config.py   the settings of a training
ranks.py    the processes that share a run
"""
