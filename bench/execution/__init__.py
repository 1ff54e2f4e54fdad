"""Where jobs run: this process, several, or a Ray cluster; the workspace, progress and signals.

Not here: what the jobs do.
"""
