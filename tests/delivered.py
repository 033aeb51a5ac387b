"""What a handler's relay has delivered, for tests that look into it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class DeliveredRows(ABC):
    """Rows that arrived, and what they hold."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """The rows that arrived, as JSON, oldest first."""
        ...

    def data(self) -> list[dict[str, Any]]:
        """The rows' attributes, by name."""
        return [row["inference_data"] for row in self.rows()]

    def only(self) -> dict[str, Any]:
        """The attributes of the only row."""
        (row,) = self.data()
        return row
