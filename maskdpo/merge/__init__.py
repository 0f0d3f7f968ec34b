"""``maskdpo merge``: the outputs of all shards of one run of ``sample`` or ``annotate``, as the output of one run."""
