"""Build, load and dispatch of the compiled kernels."""
