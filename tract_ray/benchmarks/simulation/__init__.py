"""Sweeps of many trials on many nodes, simulated on one machine: what the driver costs, and where it ends.

python -m tract_ray.benchmarks.simulation --nodes 64 --trials 1000
"""
