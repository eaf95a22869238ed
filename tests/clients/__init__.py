"""Scripts that ask a running service with the clients that people already have, as those people would.

Each runs in an environment of its own (tests/tools/*_environment.sh) and imports nothing of ours: it is given
the address of the service, reads questions as JSON from its input, and prints the answers as JSON, exactly.
"""
