"""Adversarial points of a training set: found, stored, exchanged; and the guides made from them.

Not here: the attacks that find them (the package ``attacks``).
"""
