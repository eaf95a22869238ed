"""Which engine computes what, when, and together with what. Imports `core` only.

`lane.py` runs what is asked of one version, `batch.py` merges it, `routing.py` chooses the engine by `cost.py`,
`answers.py` weaves answers of several, `slices.py` asks for many rows a part at a time, `admission.py` bounds what
waits, `workers.py` what computes.
"""
