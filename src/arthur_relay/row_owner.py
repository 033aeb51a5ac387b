"""Whose rows are whose: a row is of one address and organisation, whatever is shared or changed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RowOwner:
    """Who may send some rows.

    Attributes:
        address: Where they go, without credentials.
        organization: Arthur's id of the organisation; "" where there is none, None while it is not
            known: that of a login or a key is asked for with the first request.
        principal: A digest of who we are to Arthur, which says nothing of a credential; the same
            one has the same organisation.
        is_refused: Whether Arthur has refused that key, and never said whose it is: as far as is
            known it is nobody's, such as one that was mistyped.
    """

    address: str
    organization: str | None = None
    principal: str | None = None
    is_refused: bool = False

    def may_send(self, owner: "RowOwner") -> bool | None:
        """Say whether this one may send what belongs to another; None when it can't be said yet."""
        if self.address != owner.address:
            return False
        if self.organization is not None and owner.organization is not None:
            return self.organization == owner.organization
        if self.principal == owner.principal:
            return True
        if owner.organization is None and not owner.is_refused:
            return False  # its key may be good, and anybody's
        # Of a key that nobody knows, the rows are whose key is taken.
        return None if self.organization is None else True

    def __str__(self) -> str:
        if not self.organization:
            return self.address
        return f"{self.address}, organisation {self.organization}"
