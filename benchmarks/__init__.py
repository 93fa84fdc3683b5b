"""Microbenchmarks of every op.

``pytest benchmarks`` verifies each op, then times it beside its peers and the measured limit of the machine.
"""
