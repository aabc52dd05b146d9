"""Damaged and hostile files for every reader: `python -m fields.benchmarks.fuzz`."""
