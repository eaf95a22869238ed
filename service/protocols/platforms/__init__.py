"""The dialects of MLflow, SageMaker, Vertex AI and TorchServe."""
