"""The tables and figures of the AdvMask paper, declared as experiments.

Not here: how any table or figure is drawn (``reporting``).
"""
