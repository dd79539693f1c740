"""The measured claims of the README, one module each; `python -m benchmarks` runs them all and writes results.md."""
