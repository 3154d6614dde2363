"""Sweeps: search spaces, Optuna's study, trials on Ray, and what they found."""
