"""Benchmark of the GPU: one command, sections in a fixed order, results kept after each.

    python -m benchmarks.gpu [--seconds 460] [--sections bits,card,...] [--out benchmarks/results] [--treebank DIR]
    python -m benchmarks.gpu --rehearse      tiny, on the CPU: tests the benchmark itself, its times mean nothing
    python -m benchmarks.gpu --build         compile the kernels only, for example for TORCH_CUDA_ARCH_LIST=9.0
    python -m benchmarks.gpu.digests         make digests.json on the CPU, by the executor of the CUDA kernels

===========  =======  ==============================================================================================
section      seconds  what it measures
===========  =======  ==============================================================================================
bits         20       distances of 130 x 768 against digests of the executor; later sections say so if bits differ
card         25       GEMM rates by type, copies
core         60       products of split rows, of two parts and of one, by size and tile: TFLOP/s of float16
ops          150      every op beside its rivals, with the error of each against float64
end_to_end   200      commands, everything included: ``bertft rsa`` with several encoders, quickstart, probes of EWT
===========  =======  ==============================================================================================

An item that would pass its section's limit or the budget of the run is skipped with a line.
"""
