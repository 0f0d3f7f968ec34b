"""Does Mask-DPO help a real model? SmolLM2 on countries, on articles: docs/evidence-real-model.md has the protocol."""
