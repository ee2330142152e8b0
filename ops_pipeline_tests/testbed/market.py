"""What the project of the whole bed is made of: its catalogue and its Dockerfiles."""

CATALOGUE = """\
version: 1
project: market
registry: {{address: "127.0.0.1:{registry}/market"}}
store: {{directory: .ops/store}}
front_door: {{url: "http://127.0.0.1:{door}"}}
prometheus: {{url: "http://127.0.0.1:{prometheus}"}}
alertmanager: {{url: "http://127.0.0.1:{alertmanager}"}}
scan:
  sample_database: deploy/sample-vulnerabilities
  # Nobody listens there: the real database would find something new in the base image one day.
  database_mirror: 127.0.0.1:9/nowhere
environments:
  dev:
    hosts: [{{name: local}}]
    url: http://127.0.0.1:{dev}
    subnet: {subnet_dev}
    network: {id}-dev
    edge_container: {id}-edge-dev
    flags_volume: {id}-flags-dev
    standby_minutes: 120
    policy: {{allow_sample_database: true}}
  prod:
    hosts: [{{name: local}}]
    url: http://127.0.0.1:{prod}
    subnet: {subnet_prod}
    network: {id}-prod
    edge_container: {id}-edge-prod
    flags_volume: {id}-flags-prod
    promote_from: dev
    standby_minutes: 120
    policy: {{allow_sample_database: true, max_scan_age_hours: 24}}
services:
"""
SERVICE = """\
  {name}:
    description: {description}
    owners: ["team:market"]
    build: {{context: {name}}}
    port: 8080
    route: {{path: /{name}, strip_prefix: true}}
    health: {{start_timeout_seconds: 30}}
    verify: {{seconds: 0}}
    drain_seconds: 2
    stop_grace_seconds: 5
    memory_mb: 64
"""
DOCKERFILE = """\
FROM {base} AS base

FROM base AS test
COPY words.txt /srv/
RUN grep -q . /srv/words.txt

FROM base
COPY words.txt /srv/
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=60s CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health/ready')"]
ARG VERSION=none
ENV RELEASE=$VERSION
"""
VULNERABLE = DOCKERFILE.replace(
    "FROM base\n",
    """\
FROM base AS packages
USER root
RUN apt-get -qq update && apt-get -qq install -y --no-install-recommends python3-pip >/dev/null
RUN python3 -m pip install --quiet --no-compile --no-deps --target /packages requests==2.19.1

FROM base
COPY --from=packages /packages /usr/lib/python3/dist-packages/
""",
)
"""Installs a package with known vulnerabilities, fixed since."""

DESCRIPTIONS = {"shop": "What people can buy", "basket": "What they are about to buy", "search": "Where they find it"}
