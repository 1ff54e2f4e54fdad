"""Speed and scaling of this project, always measured beside a reference in the same run.

Not here: the estimated cost of a planned study (``studies.estimates``).
"""
