"""What the placement would have done: traces replayed through the scoring core of the live scheduler."""
