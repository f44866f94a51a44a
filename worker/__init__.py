"""The worker processes: the concurrent RQ worker, the executor of one job, and the background duties."""
