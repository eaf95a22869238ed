"""Compilers: from a fitted estimator to files that an engine of `service/runtimes` runs without it.

A compiler offers candidates; `training/prove.py` keeps what gives the estimator's own answers.
skl2onnx, onnx and treelite are imported here alone, and only when something is compiled.
"""
