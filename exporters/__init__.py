"""Hardware state → Prometheus series: real GPUs, a synthetic fleet, or a recording played back."""
