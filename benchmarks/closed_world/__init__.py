"""Does Mask-DPO work? A closed world in which the judge is exact. The protocol is in docs/evidence-closed-world.md."""
