"""Other model servers, each installed in an environment of its own, serving the same forest. See `__main__.py`."""
