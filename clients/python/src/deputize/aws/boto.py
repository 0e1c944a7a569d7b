"""The credentials of a call as botocore takes them."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from functools import cache
from typing import Any

import boto3
import botocore.session
from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
    ReadOnlyCredentials,
)
from botocore.loaders import Loader, create_loader
from botocore.tokens import TokenProviderChain

from .credentials import CallCredentials, Kept


class BotocoreCredentials(CallCredentials, DeferredRefreshableCredentials):
    """The credentials of a call, for botocore and what stands on it.

    Botocore wants fresh ones long before these end, so it asks at each signing. What it gets is what is kept: that
    costs no request. When the window is over it gets an error.
    """

    def __init__(self, kept: Kept) -> None:
        CallCredentials.__init__(self, kept)
        DeferredRefreshableCredentials.__init__(
            self,
            refresh_using=self._metadata,
            method=_METHOD,
            time_fetcher=lambda: datetime.fromtimestamp(kept.clock.now_seconds(), timezone.utc),
        )

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """What one request is signed with."""
        return _Frozen(*super().get_frozen_credentials())

    def _metadata(self) -> dict[str, Any]:
        now = self._kept.get()
        return {
            "access_key": now.access_key_id,
            "secret_key": now.secret_access_key,
            "token": now.session_token,
            "expiry_time": now.expires_at.isoformat(),
            "account_id": now.account_id,
        }


def session_with(kept: Kept, region_name: str | None) -> boto3.Session:
    """A session of boto3 that has these credentials and looks for none in environment, files or metadata services."""
    session = botocore.session.Session(session_vars=_NO_FILES)
    resolver = CredentialResolver(providers=[_OfTheCall(kept)])
    session.register_component("credential_provider", resolver)
    # Some services take bearer tokens, which botocore would find in the environment.
    session.register_component("token_provider", TokenProviderChain(providers=[]))
    # What services are like is no call's own, and takes long to read.
    session.register_component("data_loader", _service_models())
    return boto3.Session(botocore_session=session, region_name=region_name)


@cache
def _service_models() -> Loader:
    return create_loader()


class _Frozen(ReadOnlyCredentials):
    """A named tuple shows all that is in it; this one does not."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ReadOnlyCredentials()"


class _OfTheCall(CredentialProvider):
    METHOD = "deputize"
    CANONICAL_NAME = "Deputize"

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self._kept = kept

    def load(self) -> BotocoreCredentials:
        return BotocoreCredentials(self._kept)


_METHOD = "deputize"
# Where each variable comes from: configuration file, environment, default, conversion.
_NO_FILES: dict[str, Any] = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
