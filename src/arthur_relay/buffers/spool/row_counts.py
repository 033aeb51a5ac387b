"""How many rows a spool holds, in memory and on disk, and how many it has lost."""

from collections import Counter
from collections.abc import Mapping, Sequence

from arthur_relay.buffers import Loss, Recover, count_nothing
from arthur_relay.row import RECOVERED, Row


class RowCounts:
    """Counts the rows of a spool by epoch, so that a loss is charged to the right process.

    Attributes:
        rows: The number of rows held, leased ones included.
        recover: Counts rows that an earlier process captured, as for `DurableBuffer.open`.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.recover: Recover = count_nothing
        self._epochs: Counter[int] = Counter()
        self._loss = Loss()

    def add(self, rows: Sequence[Row]) -> None:
        """Count new rows."""
        self.rows += len(rows)
        for row in rows:
            self._epochs[row.epoch] += 1

    def add_recovered(self, rows: int, *, lost: int) -> None:
        """Count the rows of a file that was just opened, and those that it has lost."""
        self.rows += rows
        self._epochs[RECOVERED] += rows
        self._loss = self._loss.plus(lost)

    def remove(self, row: Row) -> None:
        """Count a row no more."""
        self.rows -= 1
        self._epochs[row.epoch] -= 1

    def add_found(self, rows: int) -> None:
        """Count rows that were thought to be settled and are still there."""
        self.rows += rows
        self.recover(rows, dict)
        self._epochs[RECOVERED] += rows

    def lose(self, rows: int, left: Mapping[int, int] | None) -> None:
        """Count rows as lost.

        Args:
            rows: The number of rows.
            left: How many rows of this process are left, by epoch. None when only rows of earlier
                processes can be lost.
        """
        self.rows -= rows
        lost: dict[int, int] = {}
        if left is not None:
            lost = {
                epoch: held - left.get(epoch, 0)
                for epoch, held in self._epochs.items()
                if epoch != RECOVERED and held > left.get(epoch, 0)
            }
        self._epochs.subtract(lost)
        self._epochs[RECOVERED] -= max(0, rows - sum(lost.values()))
        self._loss = self._loss.plus(rows, lost)

    def take_loss(self) -> Loss:
        """Return the rows lost since the last call."""
        found, self._loss = self._loss, Loss()
        return found
