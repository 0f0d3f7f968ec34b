"""Models that score a sentence against a reference: what they read, and how they are loaded and run."""
