"""The only place that knows a web framework or a web server.

Each entry point mounts the one route table, reads bytes, waits, and writes bytes. The
entry points do not know each other.
"""
