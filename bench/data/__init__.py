"""Datasets: what is known of each, how it is read, split, cropped, batched, mixed and transformed.

Not here: deletion augmentations (the package ``augmentations``) and what is trained on the data.
"""
