"""Task families: sine regression, few-shot classification and universal attacks."""
