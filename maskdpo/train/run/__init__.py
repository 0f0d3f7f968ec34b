"""A whole run: from settings and a pairs file to a model folder. Read ``train``, ``reference``, ``loop``, ``figures``,
``record``, ``checkpoint`` and ``export`` in this order; ``checks``, ``dry_run``, ``launch`` and ``push`` are for
before and after."""
