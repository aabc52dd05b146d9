"""What every method's training shares: pixels to learn from, the loop around a step, checkpoints."""
