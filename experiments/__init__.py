"""The figures and tables of Merchant et al. (2020), and what lies beyond them, by one command each.

``python -m experiments all --setting minilm --data DATA --out runs/experiments`` runs or resumes everything. An
analysis is one module here: ``stages(lab)`` says what is to be computed, ``figures(rows, lab)`` what is drawn of it.
"""
