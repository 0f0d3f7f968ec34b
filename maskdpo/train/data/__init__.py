"""From a pairs file to batches: token ids and one weight for every token. Read ``read``, ``encode``, ``weights`` and
``batch`` in this order; ``inspect`` shows the result to a person."""
