"""Where jobs run: this process, several processes, or a Ray cluster; workspace, progress, signals.

Not here: what the jobs do.
"""
