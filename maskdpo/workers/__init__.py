"""Work spread over processes of Ray: each worker holds a model, and the caller's process holds everything else."""

from maskdpo.workers.pool import Lost, Workers
from maskdpo.workers.worker import Work

__all__ = ["Lost", "Work", "Workers"]
