"""When and where an engine runs: lanes and worker threads. Imports `core` only."""
