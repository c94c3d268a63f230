"""Reads the fleet from Prometheus, scores every GPU, and publishes the scores as metrics."""
