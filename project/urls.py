"""Where the pages of the example site are."""

from django.contrib import admin
from django.urls import path

from project.shop import views

urlpatterns = [
    path("", views.home, name="home"),
    path("orders/", views.order_list, name="orders"),
    path("orders/<int:pk>/", views.order_detail, name="order"),
    path("orders/<int:pk>/checkout/", views.check_out, name="check_out"),
    path("admin/", admin.site.urls),
]
