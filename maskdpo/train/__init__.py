"""Mask-DPO training in plain PyTorch: spans -> token weights -> log-probs -> loss -> loop. See docs/method.md."""
