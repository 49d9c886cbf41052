"""The form that says what to clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import urlencode

from django import forms
from django.utils.translation import gettext_lazy as _

from stepflows.cachedsteps import Selection

__all__ = ["ClearForm", "clear_query"]

_EVERYTHING: Final = "all"
_WORKFLOW: Final = "workflow:"


class ClearForm(forms.Form):
    """What to clear: in which cache, of which workflow or of all, and perhaps only keys with a prefix."""

    cache = forms.ChoiceField(label=_("Cache"))
    scope = forms.ChoiceField(label=_("Workflow"))
    key_prefix = forms.CharField(
        label=_("Key prefix"),
        required=False,
        strip=False,
        help_text=_("Only keys that begin with this, such as “user:”. Leave it empty for all keys."),
    )

    def __init__(
        self, aliases: Sequence[str], workflows: Sequence[str], data: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(data, label_suffix="", **options)
        cache, scope = cast("list[forms.ChoiceField]", [self.fields["cache"], self.fields["scope"]])
        cache.choices = [(alias, alias) for alias in aliases]
        if len(aliases) == 1:
            cache.widget = forms.HiddenInput()
            cache.initial = aliases[0]
        scope.choices = [
            ("", "---------"),
            *((f"{_WORKFLOW}{name}", name or _("(no name)")) for name in workflows),
            (_EVERYTHING, _("All workflows")),
        ]

    def selection(self) -> Selection:
        """What a valid form says."""
        scope = self.cleaned_data["scope"]
        workflow = None if scope == _EVERYTHING else scope.removeprefix(_WORKFLOW)
        return Selection((self.cleaned_data["cache"],), workflow, self.cleaned_data["key_prefix"])


def clear_query(selection: Selection) -> str:
    """The query string with which the form comes up for what is listed. It never says "all" unasked."""
    given = {"key_prefix": selection.prefix}
    if selection.workflow is not None:
        given["scope"] = f"{_WORKFLOW}{selection.workflow}"
    if len(selection.aliases) == 1:
        given["cache"] = selection.aliases[0]
    return urlencode({name: value for name, value in given.items() if value})
