"""A real language-model server for tests: llama.cpp over a tiny model of random weights.

`tiny_model` and `server` run in an environment of their own (tests/tools/llm_environment.sh) and import nothing of
ours; `upstream` starts them from a test.
"""
