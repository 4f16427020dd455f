"""A service behind nginx by Docker Compose: files that both `docker compose` and docker-compose 1.29 take."""

from __future__ import annotations

import math

from modelport.images import nginx
from modelport.images.exporting import Exported, quoted, words
from modelport.images.plan import PORT

_RESOLVER = "127.0.0.11"
"""The DNS server that Docker gives each container."""


def files(service: Exported, build: tuple[str, str] | None = None) -> dict[str, str]:
    """The text of each file by its name. The image is made of a Dockerfile where `build` names the context and its place there."""
    replicas = [f"api-{number}" for number in range(1, service.replicas + 1)]
    return {
        "compose.yaml": _compose(service, replicas, build),
        "nginx.conf": nginx.config(service, [f"{name}:{PORT}" for name in replicas], listen=str(PORT), resolver=_RESOLVER),
        "prometheus.yml": _prometheus(service, replicas),
    }


def _compose(service: Exported, replicas: list[str], build: tuple[str, str] | None) -> str:
    apis = "\n".join(f"  {name}:\n    <<: *api" for name in replicas)
    return _COMPOSE.format(
        name=service.name,
        image=quoted(service.image),
        build=_BUILD.format(*(quoted(one.replace("$", "$$")) for one in build)) if build else "",
        command=words(service.arguments),
        apis=apis,
        healthy="\n".join(f"      {name}:\n        condition: service_healthy" for name in replicas),
        published=quoted(f"127.0.0.1:{service.port}:{PORT}"),
        port=service.port,
        inner=PORT,
        grace_s=math.ceil(service.timeout_s) + 10,
        front_grace_s=math.ceil(service.timeout_s) + 15,
        one=replicas[0],
    )


def _prometheus(service: Exported, replicas: list[str]) -> str:
    targets = words(tuple(f"{name}:{PORT}" for name in replicas))
    return _PROMETHEUS.format(name=quoted(service.name), targets=targets)


_BUILD = """
  build:
    context: {}
    dockerfile: {}"""

_COMPOSE = """\
# {name} behind nginx.
#
#   docker compose up --detach                   http://127.0.0.1:{port}/
#   docker compose --profile metrics up          Prometheus too, at http://127.0.0.1:9090/
#   docker compose --profile database up         PostgreSQL too; POSTGRES_PASSWORD is its password
#   docker compose up --detach --wait --no-deps {one}   renews one replica; then the next, and nobody notices
x-api: &api
  image: {image}{build}
  command: {command}
  restart: unless-stopped
  stop_grace_period: {grace_s}s
  read_only: true
  tmpfs:
    - /tmp
  cap_drop:
    - ALL
  security_opt:
    - no-new-privileges:true
  logging: &logging
    driver: json-file
    options:
      max-size: 10m
      max-file: "3"
  # With a key, whoever asks must bring it; without, nginx decides who gets here.
  # environment:
  #   MODELPORT_API_KEY: ...

services:
{apis}

  front:
    image: "${{NGINX_IMAGE:-nginx:1.28-alpine}}"
    restart: unless-stopped
    # Take 127.0.0.1 away to be reached from other machines.
    ports:
      - {published}
    volumes:
      - ./nginx.conf:/etc/nginx/nginx.conf:ro
    depends_on:
{healthy}
    stop_signal: SIGQUIT
    stop_grace_period: {front_grace_s}s
    read_only: true
    tmpfs:
      - /tmp
    security_opt:
      - no-new-privileges:true
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:{inner}/readyz"]
      interval: 10s
      timeout: 5s
      retries: 3
    logging: *logging

  prometheus:
    image: "${{PROMETHEUS_IMAGE:-prom/prometheus:v3.7.3}}"
    profiles:
      - metrics
    restart: unless-stopped
    ports:
      - "127.0.0.1:9090:9090"
    volumes:
      - ./prometheus.yml:/etc/prometheus/prometheus.yml:ro
      - prometheus:/prometheus
    logging: *logging

  database:
    image: "${{POSTGRES_IMAGE:-postgres:17-alpine}}"
    profiles:
      - database
    restart: unless-stopped
    environment:
      POSTGRES_USER: modelport
      POSTGRES_PASSWORD: "${{POSTGRES_PASSWORD:-}}"
    volumes:
      - database:/var/lib/postgresql/data
    healthcheck:
      test: ["CMD", "pg_isready", "--username", "modelport"]
      interval: 10s
      timeout: 5s
      retries: 5
    logging: *logging

volumes:
  database: {{}}
  prometheus: {{}}
"""

_PROMETHEUS = """\
# What Prometheus asks, and how often.
global:
  scrape_interval: 15s

scrape_configs:
  - job_name: {name}
    static_configs:
      - targets: {targets}
"""
