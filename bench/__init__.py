"""Benchmarks that print ratios between programs measured in the same run."""
