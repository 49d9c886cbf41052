"""The people of that site: known by their mail address, with an id that is no number."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models


class People(BaseUserManager["Person"]):
    def create_superuser(self, mail: str, password: str, **fields: Any) -> Person:
        person = self.model(mail=mail, is_superuser=True, **fields)
        person.set_password(password)
        person.save()
        return person


class Person(AbstractBaseUser, PermissionsMixin):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    mail = models.EmailField(unique=True)

    objects = People()

    USERNAME_FIELD = "mail"

    is_active = True
    is_staff = True
