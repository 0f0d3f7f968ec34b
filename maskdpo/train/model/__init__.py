"""The model that is trained, and its log-probs. Read ``load``, ``adapter``, ``decoder`` and ``logps`` in this order;
``probe`` checks that the log-probs are exact, ``sharding`` splits the model among processes, ``attention`` is quicker
on a CPU, ``memory`` and ``flops`` count what the model needs."""
