"""The process that owns a device and runs engines for everybody else. Composes runtimes and scheduling.

`host.py` is the process, `engines.py` what it holds open and for whom, `guard.py` watches each call.
Web processes know it through `runtimes/device_process.py` and `runtimes/remote.py`, and never import this.
"""
