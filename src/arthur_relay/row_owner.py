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
    """

    address: str
    organization: str | None = None
    principal: str | None = None

    def may_send(self, owner: "RowOwner") -> bool | None:
        """Say whether this one may send what belongs to another; None when it can't be said yet."""
        if self.address != owner.address:
            return False
        if self.organization is not None and owner.organization is not None:
            return self.organization == owner.organization
        if self.principal == owner.principal:
            return True
        return None if owner.organization is not None else False

    def __str__(self) -> str:
        if not self.organization:
            return self.address
        return f"{self.address}, organisation {self.organization}"
