"""What produced the figures of the README and of docs/results.md."""
