"""The serving side of Tandem: everything that runs when `/predict` is answered.

`service` never imports `training`. Inside, `core` imports nothing of ours;
`repository`, `runtimes`, `scheduling`, `guards` and `observability` import `core`
only, and `protocols` `guards` beside it; `generation` asks a language model that runs
elsewhere; `loading`, `server` and `assembly` compose them; `entrypoints` is the only place
that knows a web framework. `tests/test_architecture.py` holds this.
"""

from importlib.metadata import version

__version__ = version("tandem-serving")
