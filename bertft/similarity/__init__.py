"""Similarity of two spaces, with intervals.

RSA, CKA, CCA and related measures.

compare.encoders            drivers: compare_encoders (a sample of texts), compare_stream (a text of any length)
vectors                     driver: compare_vectors (vectors in files); compare.checkpoints: when a run is saved
 +-- compare.plan           which similarities to measure
 +-- compare.stimuli        the same stimuli of all encoders, batch by batch
 +-- compare.stream         place in a text, and how to resume there; compare.workers: shares of processes
 |    +-- compare.reading   buffers of a text, tokenised and batched ahead; row_checks: of rows on a GPU
 +-- compare.comparison     sums and reservoir -> rows
      |
      +-- moments           CrossMoments: measures over all stimuli, exact, from sums
      |    +-- accumulator  the sums (bertft.ops.moments); placed_sums: on the CPU or the GPU
      |    +-- measures     CCA, Procrustes, R^2, ... from scatter matrices
      +-- reservoir         random sample of whole sentences
      +-- influence         intervals of the exact measures, from the reservoir (augmented_rows)
      +-- compare.all_pairs measures that need every pair, on the reservoir
           +-- pairwise_rsa RSA with bootstrap and permutation test (bertft.ops.rdm)
           +-- neighbours   mutual nearest neighbours, CKA with a Gaussian kernel

directions, direction_words                                    principal directions of a change, and their words
causes                                                         which block, exchanged alone, moves the top layer
paired_stimuli                                                 the drawn stimuli of both
words.moved, words.agreement, words.local_rsa, words.labels    which words moved, from the same sums
dissimilarities                                                matrices as arrays, to and from rsatoolbox
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
