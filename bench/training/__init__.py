"""Training of one network: recipe, training loop, checkpoints, and the victim models of attacks.

Not here: many jobs at once and their comparison (``studies``).
"""
