"""Bounds the requests prepared ahead of their turn: reserved and journaled, but not yet sent."""

LEAST_PREPARED = 2


class PrefetchLimit:
    """Keeps as few prepared requests as keep the senders busy: after a crash they would be uncertain.

    `most` is the current bound, `concurrency` the bound on the requests in flight. Prepared requests have to
    bridge one commit of the journal, whose duration is not known in advance.
    """

    def __init__(self, concurrency: int) -> None:
        self.most: float = LEAST_PREPARED
        self.concurrency = concurrency
        self._sent = 0

    def change_concurrency(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.most = min(self.most, max(LEAST_PREPARED, concurrency))

    def resize(self, *, spare: bool, sent: int, sent_during_commit: int) -> None:
        """Adapts the bound after a commit, once its requests have been sent; `spare`: some of them are left.

        Doubles it while there were too few. Else twice the number sent during one commit is enough for the
        next. Responses come in bursts, as their requests went: the largest burst returns when every sender
        has had its turn, so the bound fades by turns and not by time. `sent` counts all requests of the run,
        `sent_during_commit` the requests since the first intent of this commit was written.
        """
        if spare:
            turns = (sent - self._sent) / max(LEAST_PREPARED, self.concurrency)
            enough = max(2 * sent_during_commit, self.most * (1 - min(1.0, turns / 2)))
        else:
            enough = 2 * self.most
        self.most = max(LEAST_PREPARED, min(enough, self.concurrency))
        self._sent = sent
