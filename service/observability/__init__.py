"""What the service says of itself. Imports `core` only."""
