"""The tables and figures of the AdvMask paper and what it leaves open, declared as experiments.

Not here: how any table or figure is drawn (``reporting``).
"""
