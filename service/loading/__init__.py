"""From the files of a version to engines that may answer. Composes repository, runtimes, scheduling and protocols.

`loader.py` tells the story, `golden.py` asks recorded rows again, `engines.py` opens what was compiled,
`options.py` keeps what repeats the golden rows on this host, and times it.
"""
