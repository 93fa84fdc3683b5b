"""The figures and tables of Merchant et al. (2020), and more.

``python -m experiments all --setting minilm --data DATA --out runs/experiments`` runs or resumes everything. An
experiment is a module with one ``EXPERIMENT``, an analysis of a study that is repeated with several seeds.
"""
