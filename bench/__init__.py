"""Compares deletion-based image augmentations fairly, and the sparse attacks behind them."""


def __getattr__(name: str) -> str:
    """``bench.__version__``, looked up when it is asked for: the metadata take a while to read."""
    if name == "__version__":
        from bench.execution.workspace import version

        return version()
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
