"""`python -m training …` is `tandem train …`."""

import sys

from training.cli import tandem

tandem(["train", *sys.argv[1:]], prog_name="tandem")
