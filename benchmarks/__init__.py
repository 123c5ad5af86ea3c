"""Timing scripts, each against a named reference. ``python -m benchmarks`` runs them and writes RESULTS.md."""
