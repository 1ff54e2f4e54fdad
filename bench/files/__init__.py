"""Files on disk: whole or not at all, with checksums, safe to read whoever wrote them.

Not here: what the files mean (that is with the things they hold).
"""
