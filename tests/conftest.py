"""Properties try the same examples in every run, and how long one takes is nobody's business."""

from hypothesis import settings

settings.register_profile("tandem", derandomize=True, deadline=None, max_examples=200)
settings.load_profile("tandem")
