"""Where the pages of the example site are."""

from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path

from project.shop import views

urlpatterns = [
    path("", views.home, name="home"),
    path("orders/", views.order_list, name="orders"),
    path("orders/<int:pk>/", views.order_detail, name="order"),
    path("orders/<int:pk>/checkout/", views.check_out, name="check_out"),
    path("orders/<int:pk>/shipping/", views.shipping, name="shipping"),
    path("runs/<uuid:pk>/", views.progress, name="progress"),
    path("runs/<uuid:pk>/status/", views.status, name="status"),
    path("runs/<uuid:pk>/cancel/", views.cancel, name="cancel"),
    path("runs/<uuid:pk>/resume/", views.resume, name="resume"),
    path("runs/<uuid:pk>/retry/", views.retry, name="retry"),
    path("admin/", admin.site.urls),
    # runserver serves the static files by itself; an ASGI server of your own does not.
    *staticfiles_urlpatterns(),
]
