"""The model that is trained and its log-probs. Read ``load``, ``adapter``, ``decoder``, ``logps`` and ``reference`` in
this order; ``attention``, ``probe``, ``distributed``, ``memory`` and ``flops`` stand beside them."""
