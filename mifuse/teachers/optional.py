"""Parts of a request that a service may not know: sent until it refuses them, then left out, aloud."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

from mifuse.teachers.base import Reply
from mifuse.teachers.service import ServiceError

_LOGGER = logging.getLogger(__name__)


class Optionals:
    """What a service has not refused yet.

    Args:
        names: the parts that can be left out.
        who: the service, for the log.
    """

    def __init__(self, names: Iterable[str], who: str) -> None:
        self._names = frozenset(names)
        self._who = who

    async def ask(self, used: Iterable[str], send: Callable[[frozenset[str]], Awaitable[Reply]]) -> Reply:
        """Send with all of `used` that is not refused; after a 400 with less of it.

        Raises:
            ServiceError: any other error, or the first refusal when leaving parts out does not help.
        """
        known = self._names & frozenset(used)
        refusal: ServiceError | None = None
        # One part less, each in turn; then none.
        for features in dict.fromkeys(
            [known, *(known - {name} for name in sorted(known)[::-1]), frozenset()]
        ):
            try:
                reply = await send(features)
            except ServiceError as error:  # noqa: PERF203 - there to be asked otherwise
                if error.status not in (400, 422):
                    raise
                refusal = refusal or error
            else:
                gone = (known - features) & self._names
                if gone:
                    _LOGGER.warning(
                        "%s refuses %s (%s): asking without", self._who, " and ".join(sorted(gone)), refusal
                    )
                    self._names -= gone
                return reply
        assert refusal is not None
        raise refusal
