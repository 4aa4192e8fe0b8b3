"""The commands of :mod:`lft.cli`.

``jobs`` has the commands that the workflow calls; ``results`` and ``tools`` have those for people.
The other modules implement the larger commands of the latter.
"""
