"""Engines: what turns rows into outputs. Imports `core` only; scikit-learn and pandas appear here alone.

`estimator.py` runs the estimator itself, `estimator_input.py` gives it what it was fitted
on, `describe.py` reads its signature, `structure.py` looks into pipelines.
"""
