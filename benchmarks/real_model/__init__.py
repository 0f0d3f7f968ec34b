"""Does Mask-DPO help a real model? SmolLM2 on countries and on articles: docs/evidence.md has the protocol."""
