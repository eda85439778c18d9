"""Benchmarks: measure what the docs say about speed and cost. `make bench` runs them all."""
