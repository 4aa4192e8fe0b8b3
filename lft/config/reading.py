"""Read YAML files strictly."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from lft.errors import UsageError


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe loader that rejects duplicate keys in a mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping; raise UsageError, with the line, for a duplicate or unhashable key."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise UsageError(f"line {line}: a key must be a plain word")
            if key in seen:
                raise UsageError(f"line {line}: key {key!r} is given twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, what: str) -> Any:
    """Read a YAML file.

    Args:
        path: the file.
        what: kind of file, for messages.

    Raises:
        UsageError: the file is missing or not YAML, or a key is given twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except OSError as error:
        raise UsageError(f"cannot read {what} {path}: {error.strerror}") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (UnicodeDecodeError, yaml.reader.ReaderError) as error:  # UTF-16, as PowerShell writes
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is no plain text in UTF-8; save it as that ({reason})") from None
    except (yaml.YAMLError, AttributeError, LookupError, RecursionError, ValueError) as error:
        # PyYAML's constructors raise errors of other types, e.g. ValueError for 2020-13-01.
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
