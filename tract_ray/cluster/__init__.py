"""Where it runs: resources, trials, tasks, Ray Train workers, and what Tune asks. The only room that imports ray."""
