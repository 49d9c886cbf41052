"""The pages of the shop."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import aget_object_or_404, get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from project.shop.models import Order
from project.shop.progress import Progress
from project.shop.quotes import ask_for_quotes
from project.shop.workflows import checkout, start_checkout
from stepflows.models import Run

PAGE_SIZE = 25


def home(request: HttpRequest) -> HttpResponse:
    paid = Order.objects.filter(state=Order.State.PAID).count()
    unpaid = Order.objects.count() - paid
    return render(request, "home.html", {"paid": paid, "unpaid": unpaid, "order": Order.objects.first()})


def order_list(request: HttpRequest) -> HttpResponse:
    orders = Order.objects.with_total().select_related("customer", "run").order_by("-placed_at", "-pk")
    page = Paginator(orders, PAGE_SIZE).get_page(request.GET.get("page"))
    return render(request, "shop/order_list.html", {"page": page})


def order_detail(request: HttpRequest, pk: int) -> HttpResponse:
    orders = Order.objects.with_total().select_related("customer", "run").prefetch_related("lines__product")
    return render(request, "shop/order_detail.html", {"order": get_object_or_404(orders, pk=pk)})


@require_POST
def check_out(_: HttpRequest, pk: int) -> HttpResponse:
    """Start the checkout on a worker, and show how it gets on."""
    run = start_checkout(get_object_or_404(Order, pk=pk))
    return redirect("progress", run.pk)


@never_cache
def progress(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Each step of a checkout as it happens."""
    run = _checkout_run(pk)
    return render(request, "shop/progress.html", {"progress": Progress(run), "order_id": run.kwargs.get("order_id")})


@never_cache
def status(_: HttpRequest, pk: UUID) -> JsonResponse:
    """The same for a program, such as the script of that page."""
    return JsonResponse(Progress(_checkout_run(pk)).as_dict())


@require_POST
def cancel(_: HttpRequest, pk: UUID) -> HttpResponse:
    """End a checkout before its next step."""
    return _changed(pk, Run.cancel)


@require_POST
def resume(_: HttpRequest, pk: UUID) -> HttpResponse:
    """Go on with a checkout. What its steps came to stands, failures too."""
    return _changed(pk, Run.resume)


@require_POST
def retry(_: HttpRequest, pk: UUID) -> HttpResponse:
    """Go on with a checkout, and do the steps again that failed."""
    return _changed(pk, Run.retry)


async def shipping(request: HttpRequest, pk: int) -> HttpResponse:
    """What it would cost to ship an order elsewhere: a workflow that runs here and now, on the event loop."""
    orders = Order.objects.select_related("customer").prefetch_related("lines__product")
    order = await aget_object_or_404(orders, pk=pk)
    answer = await ask_for_quotes(order.weight)
    return render(request, "shop/shipping.html", {"order": order, "answer": answer}, status=200 if answer.ok else 503)


def _checkout_run(pk: UUID) -> Run:
    return get_object_or_404(Run.objects.for_workflow(checkout), pk=pk)


def _changed(pk: UUID, change: Callable[[Run], bool]) -> HttpResponse:
    """Where there is nothing to change (any more), the page shows why."""
    change(_checkout_run(pk))
    return redirect("progress", pk)
