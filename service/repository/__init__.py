"""What is on disk and what is live: model files, manifests, versions. Imports `service.core` only."""
