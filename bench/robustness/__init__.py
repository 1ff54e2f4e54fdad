"""Evaluation of attacks and of occlusion: trials, batches of images, the judge, metrics, passes.

Not here: the attacks themselves (the package ``attacks``), and tables of them (``reporting``).
"""
