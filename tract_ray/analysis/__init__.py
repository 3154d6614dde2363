"""What was found: rows, statistics, the ledger, plots, and sweeps read back from MLflow."""
