"""From points to finished runs: batches, the trainer, sweeps, and where runs are trained."""
