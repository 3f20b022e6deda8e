"""What is every mapping of the file like: its keys known, its defaults written as in the file.

Room rule: the base of all sections, which know each other; it knows none of them.
"""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator


def written(value: str, *, key: str | None = None) -> Any:
    """A default in the notation of the file; it is read like one from there. ``key`` is the key, where a field cannot be so."""
    return Field(default=value) if key is None else Field(default=value, validation_alias=AliasChoices(key))


class Section(BaseModel):
    """A mapping whose keys are all known. Defaults are written as in the file, and checked like it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, arbitrary_types_allowed=True, hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _an_empty_section_has_its_defaults(cls, data: Any) -> Any:
        return {} if data is None else data
