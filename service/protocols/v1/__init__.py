"""TensorFlow Serving's protocol, which is KServe's version 1."""
