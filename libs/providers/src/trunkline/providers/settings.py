"""What a worker is told of how to treat providers; every stage's settings begin with these."""

from typing import Annotated

import msgspec
from msgspec import Meta

from trunkline.providers.breaker import BreakerRules
from trunkline.providers.course import RetryRules


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Breakers and retries."""

    breaker_failures: Annotated[int, Meta(ge=1, le=1_000)] = 3
    """Failures in a row after which a provider is left alone."""
    breaker_open_s: Annotated[float, Meta(gt=0, le=3_600)] = 30.0
    """How long it is left alone."""
    breaker_successes: Annotated[int, Meta(ge=1, le=100)] = 2
    """Successes in a row after which it is trusted again."""
    retry_tries: Annotated[int, Meta(ge=1, le=10)] = 2
    """Attempts at one provider in a row when it fails quickly."""
    retry_backoff_s: Annotated[float, Meta(gt=0, le=10)] = 0.1
    """Longest wait before the first repetition; doubled for each further one, and always a random part of it."""
    give_up_s: Annotated[float, Meta(gt=0, le=120)] = 8.0
    """How long a request may look for somebody who answers."""

    @property
    def breaker_rules(self) -> BreakerRules:
        """When breakers open and close."""
        return BreakerRules(
            failures=self.breaker_failures, open_s=self.breaker_open_s, successes=self.breaker_successes
        )

    @property
    def retry_rules(self) -> RetryRules:
        """When an attempt is repeated, and when a request is given up."""
        return RetryRules(tries=self.retry_tries, backoff_s=self.retry_backoff_s, give_up_s=self.give_up_s)
