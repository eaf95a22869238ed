"""Who may ask what, how often, and by which name of this host. Decisions, with the clock passed in.

Entry points and protocols hand over headers and addresses; what comes back is a caller, or an error of
`core/errors.py`. Imports `core` alone.
"""
