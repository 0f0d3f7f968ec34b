"""From a pairs file to batches: token ids, and one weight for every token. Read ``read``, ``encode``, ``weights`` and
``batch`` in this order; ``inspect`` and ``trained_tokens`` show people which tokens have weight."""
