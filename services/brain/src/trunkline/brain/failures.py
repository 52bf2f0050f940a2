"""How many turns in a row no provider could serve. Pure."""


class Failures:
    """One call's.

    Args:
        most: after so many there is no use in going on.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._in_a_row = 0
        self._worked = False

    @property
    def too_many(self) -> bool:
        """Whether it is time to say farewell."""
        return self._in_a_row >= self._most

    def worked(self) -> None:
        """The caller has heard an answer. It counts from the next failure on: this turn's may be told late."""
        self._worked = True

    def failed(self, *, after_all: bool = False) -> None:
        """A turn has failed; `after_all`, it is the one that was believed to have worked."""
        if self._worked and not after_all:
            self._in_a_row = 0
        self._worked = False
        self._in_a_row += 1

    def kept(self) -> tuple[int, bool]:
        """Return how many in a row, and whether an answer was heard since."""
        return self._in_a_row, self._worked

    def restore(self, in_a_row: int, *, worked: bool) -> None:
        """Begin as kept."""
        self._in_a_row, self._worked = in_a_row, worked
