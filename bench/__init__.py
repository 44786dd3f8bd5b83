"""Measurements against limits and peers: `python -m bench.NAME [--quick]` prints one JSON object and nothing else."""
