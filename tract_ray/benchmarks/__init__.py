"""What judges the rest: replayed sweeps, simulated clusters, the papers' findings."""
