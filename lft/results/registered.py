"""Which claims are registered: the hash of claims.yaml that every manifest holds.

Imports neither torch nor pandas, so every command can put the hash into its manifest.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lft.config import read_yaml
from lft.paths import shipped

REFERENCE = shipped("workflow", "reference")
CLAIMS = REFERENCE / "claims.yaml"


def registered_digest(path: Path = CLAIMS) -> str:
    """SHA-256 of what claims.yaml says; comments and layout do not count."""
    return _digest(read_yaml(path, "claims"))


def _digest(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
