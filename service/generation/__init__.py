"""Text from a language model that another server runs: asked in our words or in OpenAI's, checked, bounded, passed on.

Pure                 `rules.py` is what the operator allows, `requests.py` makes a request for the upstream of ours,
                     `events.py` reads its event stream, `replies.py` makes our answers of its; `address.py` says which
                     addresses may be asked at all
What waits for it    `upstream.py` asks, by one pool of connections for each process; `generator.py` has the routes

Imports `core`, `protocols` and the breaker of `runtimes`. httpcore is imported here alone, and only where an upstream
is configured.
"""
