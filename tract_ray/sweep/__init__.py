"""A sweep from its checks to its report: the driver, its folder, its follower, its dry run."""
