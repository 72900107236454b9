"""mulshift: graph passes that turn a trained model into an integer-only artifact, the same bits everywhere."""

__version__ = "0.1.0"
