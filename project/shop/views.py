"""The pages of the shop."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from project.shop.models import Order
from project.shop.workflows import start_checkout

PAGE_SIZE = 25


def home(request: HttpRequest) -> HttpResponse:
    paid = Order.objects.filter(state=Order.State.PAID).count()
    return render(request, "home.html", {"paid": paid, "unpaid": Order.objects.count() - paid})


def order_list(request: HttpRequest) -> HttpResponse:
    orders = Order.objects.with_total().select_related("customer", "run").order_by("-placed_at", "-pk")
    page = Paginator(orders, PAGE_SIZE).get_page(request.GET.get("page"))
    return render(request, "shop/order_list.html", {"page": page})


def order_detail(request: HttpRequest, pk: int) -> HttpResponse:
    orders = Order.objects.with_total().select_related("customer", "run").prefetch_related("lines__product")
    return render(request, "shop/order_detail.html", {"order": get_object_or_404(orders, pk=pk)})


@require_POST
def check_out(_: HttpRequest, pk: int) -> HttpResponse:
    """Start the checkout on a worker, and show the order while it runs."""
    order = get_object_or_404(Order, pk=pk)
    start_checkout(order)
    return redirect(order)
