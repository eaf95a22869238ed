"""Bodies of whole tables: Arrow, Parquet, CSV, NDJSON, npy."""
