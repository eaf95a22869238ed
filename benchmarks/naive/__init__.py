"""The servers that tutorials show, to compare with. Nothing in them is made slow on purpose, or fast."""
