"""Predictions over a body of any length: rows come in pieces, and are answered before the next ones are read.

`rows.py` asks the model and puts what is wrong with a row into that row's place; `ndjson.py` and `arrow.py` say how
rows and answers travel, and `cuts.py` where one ends and the next begins.
"""
