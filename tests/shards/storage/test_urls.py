"""What of a URL is told, wherever in a text it is."""

from __future__ import annotations

import pytest

from shards.storage.urls import without_secrets


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://me:SECRET@host/set", "https://host/set"),
        ("https://SECRET@host/set", "https://host/set"),
        ("https://me:S@CRET@host/set", "https://host/set"),
        ("https://me:SE/CRET@host/set", "https://host/set"),
        ("https://me:SE?CR#ET@host/set", "https://host/set"),
        ("https://me:'SECRET@host/set", "https://host/set"),
        ("403, url='https://host/a?X-Amz-Signature=SECRET'", "403, url='https://host/a'"),
        ("http://a/b?key=SECRET -> s3://me:SECRET@c/d", "http://a/b -> s3://c/d"),
        ("'https://host:8080': http://me:SECRET@h", "'https://host:8080': http://h"),
    ],
)
def test_no_secret_is_told(text: str, told: str) -> None:
    assert without_secrets(text) == told


@pytest.mark.parametrize(
    "text", ["s3://bucket/a@v1/set", "https://host:80/a@b", "https://host:/a@b", "me@host: no URL"]
)
def test_all_else_stays(text: str) -> None:
    assert without_secrets(text) == text
