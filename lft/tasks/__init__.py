"""Task families: sine regression, few-shot classification and universal attacks.

A new one is a module here, with a class after :class:`lft.tasks.base.TaskFamily`, and its settings,
registered by ``@register_family``, in :mod:`lft.config.families`.
"""
