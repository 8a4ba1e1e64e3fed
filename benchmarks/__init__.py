"""Side-by-side comparisons; run one with ``python -m benchmarks.<name>``, see README.md."""
