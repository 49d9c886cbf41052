"""Where the pages of the admin are, and what is on them."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from django.contrib.admin.utils import quote
from django.urls import reverse

from stepflows.cachedsteps import Place

LIST = "cachedstep_changelist"
CLEAR = "cachedstep_clear"


def page(name: str, *args: Any) -> str:
    """The address of a page: ``page("run_changelist")``."""
    return reverse(f"admin:stepflows_{name}", args=args)


def step_page(name: str, place: Place) -> str:
    """The address of a page about one cached step: ``change``, ``delete`` or ``history``."""
    return page(f"cachedstep_{name}", quote(place.id))


def text_of(response: Any) -> str:
    """What a reader sees: the text of the page's content, with single spaces."""
    html = response.content.decode()
    content = html[html.index('<div id="content"') : html.index("<!-- END Content -->")]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", content)).split())


def rows(response: Any) -> list[list[str]]:
    """The cells of the list, row by row, without the check boxes."""
    listed = response.content.decode().partition('id="result_list"')[2]
    body = re.search(r"<tbody>(.*?)</tbody>", listed, re.DOTALL)
    found = re.findall(r"<tr>(.*?)</tr>", body[1], re.DOTALL) if body else []
    cells = (re.findall(r'<t[hd] class="field-[^>]*>(.*?)</t[hd]>', row, re.DOTALL) for row in found)
    return [[" ".join(unescape(re.sub(r"<[^>]*>", " ", cell)).split()) for cell in row] for row in cells]


def messages_of(response: Any) -> list[str]:
    """What the page reports on top."""
    return [str(message) for message in response.context["messages"]]
