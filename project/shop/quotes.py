"""What shipping costs, to several countries at once, and what of that was known."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from project.shop.progress import seconds
from project.shop.workflows import COUNTRIES, quote_key, shipping_quotes
from stepflows import Event, Ok


@dataclass(frozen=True)
class Quote:
    """What shipping to one country costs."""

    country: str
    name: str
    price: Decimal
    from_cache: bool


@dataclass(frozen=True)
class Answer:
    """The quotes, or why there are none."""

    quotes: tuple[Quote, ...] = ()
    error: str = ""
    #: How long the workflow ran.
    took: str = ""

    @property
    def ok(self) -> bool:
        return not self.error

    @property
    def from_cache(self) -> int:
        return sum(quote.from_cache for quote in self.quotes)


async def ask_for_quotes(weight: int) -> Answer:
    """Run the workflow here. Its events tell which quotes came from the cache."""
    events: list[Event] = []
    result = await shipping_quotes.using(on_event=events.append).arun(weight=weight)
    if not isinstance(result, Ok):
        return Answer(error=str(result.error) or repr(result.error))
    cached = {event.key for event in events if event.type == "step_cache_hit"}
    quotes = (
        Quote(country, COUNTRIES[country], price, quote_key(country, weight) in cached)
        for country, price in result.value.items()
    )
    took = sum(event.duration or 0.0 for event in events if event.type == "workflow_success")
    return Answer(tuple(quotes), took=seconds(took))
