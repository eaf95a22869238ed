"""Bytes to messages and back, one module per dialect; the route table; the status table; OpenAPI.

Pure: no framework, no I/O, no threads. Imports `core` only.
"""
