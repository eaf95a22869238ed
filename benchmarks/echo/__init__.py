"""The least a web server can do with a request: give its body back. No model server is faster on the same server."""
