"""The commands of :mod:`lft.cli`: ``jobs`` has those that the workflow calls, ``results`` and
``tools`` those for people. What a larger one does has a module here; none is part of a job.
"""
