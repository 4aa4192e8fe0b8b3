"""Registries of settings classes, from which the key ``kind`` of a profile chooses.

Built-in kinds and plug-ins register in the same way.
"""

from __future__ import annotations

import re
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from lft.config.base import Settings
from lft.errors import UsageError, suggestion

S = TypeVar("S", bound=Settings)


class Kinds(dict[str, type[S]], Generic[S]):
    """Settings classes by kind; as an annotation, validates a value by the class of its kind.

    Args:
        what: name of the registered things in messages.
        base: base class of all kinds.
        default: kind of a value without the key ``kind``.
    """

    def __init__(self, what: str, base: type[S], default: str | None = None) -> None:
        super().__init__()
        self.what = what
        self.base = base
        self.default = default

    def check(self, settings: type[S]) -> str:
        """Check a class before registration and return its kind.

        Raises:
            UsageError: it is not a subclass of the base class, or has no valid ``kind``.
        """
        if not (isinstance(settings, type) and issubclass(settings, self.base)):
            raise UsageError(
                f"a {self.what} is a subclass of {self.base.__name__}, not {settings!r}"
            )
        field = settings.model_fields.get("kind")
        kind = field.default if field else None
        if not isinstance(kind, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", kind):
            raise UsageError(f"{settings.__name__} needs a field like kind: Literal['my'] = 'my'")
        return kind

    def register(self, settings: type[S]) -> type[S]:
        """Add a kind; usable as a decorator.

        Raises:
            UsageError: the class is incomplete, or its kind is taken.
        """
        kind = self.check(settings)
        if self.setdefault(kind, settings) is not settings:
            raise UsageError(f"there is another {self.what} of kind {kind!r}; choose another name")
        return settings

    def validate(self, value: Any) -> S:
        """Validate a value as settings of its kind.

        Raises:
            ValidationError: the kind is missing or unknown, or the settings are invalid.
            PydanticCustomError: the value is not a mapping.
        """
        if isinstance(value, self.base):
            return value
        if not isinstance(value, dict):
            raise PydanticCustomError("mapping", "Input should be a mapping of settings")
        kind = value.get("kind", self.default)
        if kind is None:
            raise self._refused("missing", value)
        if not isinstance(kind, str) or kind not in self:
            text = f"unknown kind {kind!r}{suggestion(str(kind), self)}"
            raise self._refused(PydanticCustomError("value_error", "{text}", {"text": text}), value)
        return self[kind].model_validate(value)

    def _refused(self, problem: str | PydanticCustomError, value: Any) -> ValidationError:
        details = InitErrorDetails(type=problem, loc=("kind",), input=value)
        return ValidationError.from_exception_data(self.what, [details])

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            lambda value, _: self.validate(value), handler(source)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(kind.__pydantic_core_schema__) for kind in self.values()]}

    __hash__ = object.__hash__  # type: ignore[assignment]
