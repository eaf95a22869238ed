"""Imported for its effect: every family of formulas is registered."""

from __future__ import annotations

from training.compile import (  # noqa: F401
    onnx_boosting,
    onnx_convert,
    onnx_decomposition,
    onnx_density,
    onnx_ensembles,
    onnx_kernels,
    onnx_linear,
    onnx_neighbors,
    onnx_networks,
    onnx_pipelines,
    onnx_preprocessing,
    onnx_trees,
)
