"""Records of finished jobs: the record, the folder that keeps it, statistics over seeds, MLflow.

Not here: how records are shown (``reporting``).
"""
