"""The causal fleet: load → power → heat → clocks, with faults, in real time or much faster."""
