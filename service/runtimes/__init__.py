"""Engines: what turns rows into outputs. Imports `core` only; libraries of models appear here alone.

The estimator   `estimator.py` runs it, `estimator_input.py` gives it what it was fitted on, `describe.py` and
                `sample.py` read its signature, `structure.py` looks into pipelines
Compiled        `onnx*.py` and `treelite*.py` on the CPU, `nvforest.py` and `cuml*.py` on a GPU
Elsewhere       `device.py` looks for a GPU, `device_process.py` starts the process that owns it, `remote.py` asks
                that process; `channel.py`, `wire.py`, `shared_memory.py` and `device_errors.py` are the way there,
                `breaker.py` leaves it alone for a while
Threads         `threads.py` keeps every library to one budget
"""
