"""Where the servers of an app are, as Celery writes it and as the store reads it."""

import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

SCHEMES = ("redis://", "rediss://", "valkey://", "valkeys://", "unix://", "redis+socket://")


TLS_OPTIONS = frozenset(
    f"ssl_{name}"
    for name in ("cert_reqs", "ca_certs", "ca_path", "ca_data", "certfile", "keyfile", "password")
) | {"ssl_check_hostname", "ssl_ciphers"}
"""What Celery is told of TLS beside a URL, and redis-py reads from one."""


def split_urls(setting: object) -> list[str]:
    """Return the URLs in *setting*: a list of them, one, several with `;` between, or None."""
    urls = setting if isinstance(setting, list | tuple) else [setting or ""]
    return [one.strip() for url in urls for one in str(url).split(";") if one.strip()]


def is_redis(url: str) -> bool:
    """Tell whether *url* leads to a Redis or Valkey, or to Sentinels of one."""
    return url.startswith((*SCHEMES, "sentinel://"))


def find_store(setting: object, options: Mapping[str, Any], tls: object = None) -> str | None:
    """Return the URL of the store that is the first Redis of a broker or result backend.

    Args:
        setting: Its `broker_url` or `result_backend`.
        options: Its transport options.
        tls: Its `broker_use_ssl` or `redis_backend_use_ssl`; Sentinels are asked without.
    """
    urls = [url for url in split_urls(setting) if is_redis(url)]
    sentinels = [url for url in urls if url.startswith("sentinel://")]
    if sentinels and sentinels[0] == urls[0]:
        return _through_sentinels(sentinels, options)
    if not urls:
        return None
    url = re.sub(r"(ssl_cert_reqs=)CERT_(\w+)", lambda it: it[1] + it[2].lower(), urls[0])
    if url.startswith("redis+socket://"):
        return url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=")
    return _with_tls(url, tls) if isinstance(tls, Mapping) else url


def _with_tls(url: str, tls: Mapping[str, Any]) -> str:
    """Return *url* with what is said of TLS beside it; what it says itself wins."""
    said = {name: value for name, value in tls.items() if name in TLS_OPTIONS and value is not None}
    if "ssl_cert_reqs" in said:
        said["ssl_cert_reqs"] = _verify_mode(said["ssl_cert_reqs"])
    base, mark, own = re.sub(r"^(redis|valkey)://", r"\1s://", url).partition("?")
    said = {name: value for name, value in said.items() if f"{name}=" not in own}
    query = "&".join(filter(None, (own, urlencode(said))))
    return f"{base}?{query}" if query else base + mark


def _verify_mode(value: object) -> str:
    mode = ssl.VerifyMode(value).name if isinstance(value, int) else str(value)
    return mode.removeprefix("CERT_").lower()


def _through_sentinels(urls: list[str], options: Mapping[str, Any]) -> str | None:
    name = options.get("master_name")
    if not name:
        return None
    parts = [urlsplit(url) for url in urls]
    user, at, _ = parts[0].netloc.rpartition("@")
    hosts = ",".join(part.netloc.rpartition("@")[2] for part in parts)
    database = next((part.path.strip("/") for part in parts if part.path.strip("/")), "0")
    asked = options.get("sentinel_kwargs") or {}
    secrets = {f"sentinel_{key}": asked[key] for key in ("username", "password") if asked.get(key)}
    query = f"?{urlencode(secrets)}" if secrets else ""
    return f"redis+sentinel://{user}{at}{hosts}/{quote(str(name), safe='')}/{database}{query}"
