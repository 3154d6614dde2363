"""What is tried next: spaces, samplers, the study, the queue of jobs, budgets, warm starts, populations."""
