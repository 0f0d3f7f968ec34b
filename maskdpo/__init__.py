"""maskdpo: sentence-level factuality alignment of language models (Mask-DPO, arXiv 2503.02846)."""

__version__ = "0.1.0"
