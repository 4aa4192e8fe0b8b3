"""Task families: sine regression, few-shot classification and universal attacks.

To add a family, subclass :class:`lft.tasks.base.TaskFamily` in a new module here, and register its
settings with ``@register_family`` in :mod:`lft.config.families`.
"""
