"""Settings that come from the environment alone, by variables of one prefix."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from arthur_relay.errors import SettingsError
from arthur_relay.settings.types import explain, shown


class EnvironmentSettings(BaseSettings):
    """Settings of one part, immutable. Subclasses set `env_prefix` and `whose`.

    Raises:
        SettingsError: A value is not allowed; the message names the variable, the value and what is
            allowed.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=False,
    )

    whose: ClassVar[str]
    """The part, as messages name it."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            text = explain(
                error,
                type(self).model_fields,
                prefix=type(self).model_config.get("env_prefix", ""),
                by_keyword=False,
                default=self.shown_default,
                whose=f" of {self.whose}",
            )
            raise SettingsError(text) from None

    @classmethod
    def shown_default(cls, name: str) -> str:
        """Return a setting's default as people write it."""
        return shown(cls.model_fields[name].default)
