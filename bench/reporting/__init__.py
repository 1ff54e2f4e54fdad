"""From records to tables, plots, image grids, the HTML report and the supplement.

Not here: the statistics behind them (``records.statistics``) and the paper's layouts (``paper``).
"""
