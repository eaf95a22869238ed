"""The vocabulary: signatures, tables, messages, errors. Imports nothing of ours, knows no status codes."""
