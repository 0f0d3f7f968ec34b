"""A whole run: from a pairs file and settings to a model folder. Read ``train``, ``record``, ``heldout``,
``checkpoint`` and ``export`` in this order; what is around a run (``dry_run``, ``launch``, ``push``) stands beside."""
