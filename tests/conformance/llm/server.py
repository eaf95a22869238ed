"""llama.cpp's OpenAI-compatible server over the tiny model. usage: server.py FOLDER

Writes the model into FOLDER, serves it as `tiny` on a free port of 127.0.0.1, prints its address, and ends when its
input does: at the latest with the process that started it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import tiny_model
import xllamacpp

SLOTS: Final = 2  # generations at a time; others wait


def parameters(model: Path) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {"tiny"}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * tiny_model.CONTEXT
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 8
    params.endpoint_slots = params.endpoint_metrics = True
    # What was computed for an earlier prompt is computed again, so that the same question gets the same digits.
    params.cache_prompt = False
    params.cache_ram_mib = 0
    return params


def main() -> None:
    model = Path(sys.argv[1], "tiny.gguf")
    tiny_model.write(model)
    server = xllamacpp.Server(parameters(model))
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # generations that nobody waits for any more would be finished first


if __name__ == "__main__":
    main()
