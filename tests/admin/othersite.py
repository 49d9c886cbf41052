"""A project with an admin site of its own beside Django's."""

from django.contrib import admin
from django.urls import path

from stepflows.admin import CachedStepAdmin, RunAdmin
from stepflows.models import CachedStep, Run


class Desk(admin.AdminSite):
    site_header = "The desk"


desk = Desk(name="desk")
desk.register(CachedStep, CachedStepAdmin)
desk.register(Run, RunAdmin)

urlpatterns = [path("admin/", admin.site.urls), path("desk/", desk.urls)]
