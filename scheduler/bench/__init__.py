"""How fast the scheduler is: `python -m scheduler.bench`. Every figure comes from real processes."""
