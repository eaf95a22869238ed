"""Measurements, run by hand: `make bench`. Results with machine and date go to `benchmarks/results/`."""
