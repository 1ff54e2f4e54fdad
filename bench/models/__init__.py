"""Networks by name, their weights, and what they look at (saliency, Grad-CAM).

Not here: how they are trained (``training``).
"""
