"""A user of the admin, at a distance."""

from __future__ import annotations

import re

import httpx

__all__ = ["Visit"]

_ADMIN = "/admin/"
_STEPS = "/admin/stepflows/cachedstep/"


class Visit:
    """Somebody who has logged in."""

    def __init__(self, site: str, name: str, password: str) -> None:
        self._client = httpx.Client(base_url=site, follow_redirects=True, timeout=60)
        self.sees(_ADMIN, "Log in")
        self._sends(f"{_ADMIN}login/?next={_ADMIN}", username=name, password=password)
        self.sees(_ADMIN, "Workflow steps", "Cached steps", "Runs")

    def sees(self, path: str, *words: str) -> str:
        """The page, on which these words are."""
        return self._read(self._client.get(path), *words)

    def deletes(self, key: str) -> None:
        """Selects that step in the list, chooses to delete it, and confirms."""
        (row,) = (row for row in self.sees(_STEPS, key).split("<tr") if key in row)
        box = re.search(r'name="_selected_action" value="([^"]+)"', row)
        assert box, f"{_STEPS} has no box to select {key}: {row}"
        chosen = {"action": "delete_selected", "_selected_action": box[1]}
        self._read(self._sends(_STEPS, **chosen), "Are you sure", key)
        self._sends(_STEPS, **chosen, post="yes")
        assert key not in self.sees(_STEPS), f"{key} is still in the list"

    def _sends(self, path: str, **fields: str) -> httpx.Response:
        token = self._client.cookies["csrftoken"]
        return self._client.post(path, data={"csrfmiddlewaretoken": token, **fields})

    def _read(self, answer: httpx.Response, *words: str) -> str:
        text = answer.text
        seen = re.sub(r"(<[^>]*>|\s)+", " ", text)
        assert answer.status_code == httpx.codes.OK, f"{answer.url}: {answer.status_code}\n{seen}"
        missing = [word for word in words if word not in text]
        assert not missing, f"{answer.url} does not show {missing}:\n{seen}"
        return text
