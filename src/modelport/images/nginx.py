"""The configuration of nginx in front of replicas of a service."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from modelport.errors import UsageError
from modelport.images.exporting import Exported

_SERVER = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?:[0-9]{1,5}")
_RETRY_S = 5
"""A request that has taken longer is not tried again on another replica."""
_UPSTREAM_IDLE_S = 60
"""Shorter than a service keeps its connections (75 s), so that none is closed just as a request goes out on it."""


def config(
    service: Exported,
    servers: Sequence[str],
    *,
    listen: str = "8080",
    resolver: str = "",
    folder: str = "/tmp",  # noqa: S108  in its container
    access_log: str = "/dev/stdout",
) -> str:
    """A whole nginx.conf that spreads requests over `servers`, each as host:port.

    With a `resolver` (an address of a DNS server) their names are asked again as they change, which nginx can from 1.27.3 on, and idle
    connections outlive a reload, from 1.27.4 on. `folder` is the one place that is written to, and is there.
    """
    for server in servers:
        if not _SERVER.fullmatch(server):
            raise UsageError(f"{server[:100]!r} is no server", hint="A server is host:port, as api-1:8080.")
    again = " resolve" if resolver else ""
    upstream = "\n".join(f"        server {server}{again} max_fails=0;" for server in servers)
    named = " ".join(service.host_names) or "_"
    answer_s = math.ceil(service.timeout_s) + 5
    return _CONFIG.format(
        folder=folder,
        access_log=access_log,
        resolver=f"\n    resolver {resolver} valid=2s ipv6=off;\n    keepalive_min_timeout 10s;" if resolver else "",
        upstream=upstream,
        upstream_idle_s=_UPSTREAM_IDLE_S,
        others=_OTHERS.format(listen=listen) if service.host_names else "",
        listen=listen if service.host_names else f"{listen} default_server",
        named=named,
        max_body=service.max_body_bytes,
        answer_s=answer_s,
        shutdown_s=answer_s + 5,
        retry_s=_RETRY_S,
        errors=_errors(),
    )


def _errors() -> str:
    """What nginx itself refuses, as problem documents like the service's own."""
    lines = []
    for status, (code, title, detail, more) in _PROBLEMS.items():
        body = f'{{"type":"urn:modelport:{code}","title":"{title}","status":{status},"detail":"{detail}","request_id":"$id"}}'
        given = " ".join(str(one) for one in _GIVEN_BY.get(status, (status,)))
        lines += [
            f"        error_page {given} ={status} @{code};",
            f"        location @{code} {{",
            "            internal;",
            "            default_type application/problem+json;",
            "            add_header X-Request-Id $id always;",
            "            add_header Cache-Control no-store always;",
            *([f"            add_header {more} always;"] if more else []),
            f"            return {status} '{body}';",
            "        }",
        ]
    return "\n".join(lines)


_PROBLEMS = {
    400: ("request", "The request cannot be answered", "what was sent is no HTTP request", ""),
    408: ("request-timeout", "The body came too slowly", "the request did not arrive in time", ""),
    413: ("too-large", "The body is too large", "the body is larger than this service takes", ""),
    431: ("headers-too-large", "The headers are too large", "the line or the headers of the request are too large", ""),
    503: ("unavailable", "Not available now", "no replica of the service answers", "Retry-After 1"),
    504: ("deadline-exceeded", "The model did not answer in time", "the service did not answer in time", ""),
}
"""Status: the error's code, title, detail, and one header more."""
_GIVEN_BY = {431: (414, 431, 494), 503: (500, 502, 503)}
"""The statuses that nginx gives; 494 is its own for headers that are too large."""

_OTHERS = """
    server {{  # whoever asks for another name gets no answer
        listen {listen} default_server;
        return 444;
    }}
"""

_CONFIG = """\
# nginx in front of the replicas of a service. `nginx -t` checks this file, `nginx -s reload` has it loaded again.
worker_processes auto;
worker_shutdown_timeout {shutdown_s}s;
error_log /dev/stderr warn;
pid {folder}/nginx.pid;

events {{
    worker_connections 4096;
}}

http {{
    server_tokens off;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;

    log_format requests escape=json '{{"time":"$time_iso8601","request_id":"$id","client":"$remote_addr","method":"$request_method",'
        '"path":"$uri","status":$status,"bytes":$bytes_sent,"seconds":$request_time,"replica":"$upstream_addr",'
        '"replica_status":"$upstream_status","replica_seconds":"$upstream_response_time"}}';
    access_log {access_log} requests;

    # A request keeps the id that it came with, where that is a sane one, and no quote of JSON.
    map $http_x_request_id $id {{
        "~^[!#-\\[\\]-~]{{1,128}}$" $http_x_request_id;
        default $request_id;
    }}

    keepalive_timeout 65s;
    client_header_timeout 15s;
    client_body_timeout 30s;
    send_timeout 30s;
    reset_timedout_connection on;
    large_client_header_buffers 4 32k;
    client_max_body_size {max_body};
    client_body_buffer_size 256k;

    gzip on;
    gzip_types application/json application/problem+json text/csv text/css text/javascript image/svg+xml;
    gzip_min_length 1024;
    gzip_proxied any;
    gzip_vary on;
{resolver}
    upstream api {{
        zone api 64k;
{upstream}
        keepalive 64;
        keepalive_timeout {upstream_idle_s}s;
    }}
{others}
    server {{
        listen {listen};
        server_name {named};

        location / {{
            proxy_pass http://api;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Request-Id $id;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host;
            proxy_connect_timeout 1s;
            proxy_send_timeout {answer_s}s;
            proxy_read_timeout {answer_s}s;
            proxy_buffers 16 64k;
            proxy_buffer_size 64k;
            proxy_busy_buffers_size 128k;
            # The service has read the whole request when it gets it: slow senders keep nobody waiting.
            proxy_request_buffering on;
            # A replica that is gone, or not ready: the other one is asked. Predicting twice does no harm.
            proxy_next_upstream error timeout http_502 http_503 non_idempotent;
            proxy_next_upstream_tries 2;
            proxy_next_upstream_timeout {retry_s}s;
        }}

        # What is counted is not for everyone: ask a replica itself.
        location = /metrics {{
            default_type application/problem+json;
            return 404 '{{"type":"urn:modelport:not-found","title":"Not found","status":404,"detail":"metrics are not given here"}}';
        }}

{errors}
    }}
}}
"""
