"""The names of values that an encoder could not send."""


class Omitted(list[str]):
    """Collects what is counted as omitted; see `CountsOmissions`."""

    def omit(self, name: str) -> None:
        self.append(name)
