"""Adversarial points of training images: finding, storing, exchange; and guides made from them.

Not here: the attacks that find the points (the package ``attacks``).
"""
