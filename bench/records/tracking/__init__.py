"""Records in MLflow, an index to browse: the tracker, its runs, and its database.

Not here: intervals and tables, which ``reporting`` makes, and when something is logged
(``studies``). Only modules of this room import mlflow.
"""
