"""Bytes to messages and back; the route table; the status table; OpenAPI.

The native dialect and what all of them rest on is here; other servers' dialects are packages below.
Pure: no framework, no I/O, no threads. Imports `core` only.
"""
