"""What a model makes of a fleet, on a card: the arithmetic of batches.py and residuals.py in torch, for any device."""
