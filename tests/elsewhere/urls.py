"""The admin of that site, with a site object and addresses of its own."""

from django.contrib import admin
from django.urls import path

from stepflows.admin import CachedStepAdmin, RunAdmin
from stepflows.models import CachedStep, Run


class Office(admin.AdminSite):
    site_header = "Büro"
    enable_nav_sidebar = False


office = Office(name="office")
office.register(CachedStep, CachedStepAdmin)
office.register(Run, RunAdmin)

urlpatterns = [path("buero/", office.urls)]
