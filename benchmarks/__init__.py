"""Microbenchmarks: ``pytest benchmarks`` verifies, then times every op beside its peers and the machine's own limit."""
