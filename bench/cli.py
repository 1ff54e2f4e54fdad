"""The command line: parse and hand over."""

import click


@click.group()
def main() -> None:
    """Compare deletion augmentations and sparse attacks."""
