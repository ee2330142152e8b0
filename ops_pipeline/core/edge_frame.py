# ruff: noqa: E501 - a rule of HAProxy stands on one line
"""What all services of an environment share at the edge, in HAProxy's words. No service is named here."""

from __future__ import annotations

from ops_pipeline.core.routing import EdgeTopology

LISTEN_PORT = 8080
"""Where users' requests arrive, inside the container."""

INTERNAL_PORT = 8405
"""`/metrics` (HAProxy's Prometheus exporter) and `/health`, for the environment's network only."""

EXPORTER_PORT = 8406
"""`/metrics` of the requests by service, release and track (deploy/images/edge/exporter), for that network only."""

# One spelling of a path for the rules that close something: decoded, lower case, without doubled slashes.
NORMAL_PATH = "url_dec,lower,regsub(/+,/,g)"
PRIVATE_PATH = "^/metrics(/|$)"


def milliseconds(seconds: float) -> str:
    """A duration as HAProxy writes it."""
    return f"{max(1, round(seconds * 1000))}ms"


def json_error(status: int, text: str) -> str:
    """The arguments of `http-request return` and `http-error` for an answer of the edge itself."""
    return f"""status {status} content-type application/json string '{{"error":"{text}"}}'"""


_ERRORS = {
    400: "bad request",
    403: "forbidden",
    408: "the request took too long to arrive",
    413: "the request is too large",
    500: "the edge failed",
    502: "the service broke off its answer",
    503: "no replica of the service can answer now",
    504: "the service did not answer in time",
}

_LOG_FORMAT = (
    '{"time":%Ts.%ms,"env":"ENVIRONMENT","service":"%[var(txn.service)]","release":"%[var(txn.release)]",'
    '"track":"%[var(txn.track)]","pool":"%[var(txn.pool)]","server":"%s","method":"%HM",'
    '"path":"%[var(txn.path),json(utf8s)]","status":%ST,"bytes":%B,"retries":"%rc","end":"%ts",'
    '"queue_ms":%Tw,"connect_ms":%Tc,"response_ms":%Tr,"active_ms":%Ta,"request_id":"%[var(txn.id)]"}'
)


def frame(topology: EdgeTopology, digest: str) -> str:
    """Text of `frame.cfg` with `digest` in its description."""
    longest = max([60.0, *(service.timeout_seconds for service in topology.services)])
    if topology.services:
        no_service = json_error(404, "no service has this address")
    else:
        no_service = json_error(503, "nothing deployed")
    replaced = {
        "DIGEST": digest,
        "TIMEOUT_CLIENT": milliseconds(longest + 5),
        "LISTEN_PORT": str(LISTEN_PORT),
        "INTERNAL_PORT": str(INTERNAL_PORT),
        "LOG_FORMAT": _LOG_FORMAT,
        "ENVIRONMENT": topology.environment,
        "NO_SERVICE": no_service,
        "NOT_FOUND": json_error(404, "not found"),
        "NOTHING_DEPLOYED": json_error(503, "nothing deployed"),
        "NORMAL": NORMAL_PATH,
        "PRIVATE": PRIVATE_PATH,
        "ERRORS": "\n".join(f"    http-error {json_error(status, text)}" for status, text in _ERRORS.items()),
    }
    text = _FRAME
    for word, value in replaced.items():
        text = text.replace(f"<{word}>", value)
    return text.replace("ENVIRONMENT", topology.environment)


_FRAME = """\
# Written by ops_pipeline: what all services of the environment share. Services stand in services/*.cfg.
global
    description ops-edge <ENVIRONMENT> <DIGEST>
    # For people, and for the exporter: a file in memory that the entrypoint opened.
    log stdout len 4096 format raw local0 info
    log fd@3 len 4096 format raw local0 info
    stats socket /run/ops-edge/admin.sock mode 600 level admin expose-fd listeners
    stats timeout 30s
    # One thread: several get in each other's way when they log, and HAProxy then drops lines.
    nbthread 1
    maxconn 4096
    # A worker that a reload replaced may finish its WebSockets, but neither for ever nor in any number.
    hard-stop-after 12h
    mworker-max-reloads 20
    spread-checks 5

defaults ops
    mode http
    log global
    option dontlognull
    option http-keep-alive
    # A reload must not close a connection a client is about to use: it is closed with the next answer instead.
    option idle-close-on-response
    option forwardfor
    option clitcpka
    option srvtcpka
    http-reuse safe
    # Only what never reached a server is tried again, and only inside the chosen pool.
    retries 3
    retry-on conn-failure
    option redispatch 1
    balance leastconn
    timeout connect 2s
    timeout client <TIMEOUT_CLIENT>
    timeout client-fin 30s
    timeout server 60s
    timeout server-fin 30s
    timeout tunnel 24h
    timeout http-request 15s
    timeout http-keep-alive 75s
    timeout queue 2s
    timeout check 2s
    default-server check inter 1s fastinter 250ms downinter 500ms rise 1 fall 3 pool-purge-delay 1s
<ERRORS>

frontend public from ops
    bind :<LISTEN_PORT>
    # Requests that a replaced worker still gets over an old connection (the last rules of this section).
    bind unix@/run/ops-edge/relay.sock mode 600 accept-proxy
    log-format '<LOG_FORMAT>'
    unique-id-format %[uuid()]

    http-request set-var(txn.path) path,bytes(0,512)
    http-request set-header X-Request-Id %[unique-id] unless { req.hdr(X-Request-Id) -m reg ^[A-Za-z0-9._-]{1,128}$ }
    http-request set-var(txn.id) req.hdr(X-Request-Id)
    http-after-response set-header X-Request-Id %[var(txn.id)] if { var(txn.id) -m found }

    # Paths that different programs read differently would let a request slip past its route.
    http-request return status 400 content-type application/json string '{"error":"bad path"}' if { path,url_dec -m reg (^|/)\\.\\.?(/|$) }
    http-request return status 405 content-type application/json string '{"error":"method not allowed"}' if { method TRACE CONNECT }
    http-request return status 413 content-type application/json string '{"error":"the request is too large"}' if { req.hdr(content-length),add(0) gt 1073741824 }
    http-request return <NOT_FOUND> if { path,<NORMAL> -m reg <PRIVATE> }
    # No upgrade but WebSocket: «h2c» would open a tunnel past every rule here.
    http-request del-header Upgrade unless { req.hdr(Upgrade) -i websocket }
    http-request del-header Proxy
    http-request set-header X-Forwarded-Proto http unless { req.hdr(X-Forwarded-Proto) -m found }

    # Which service: rules for this host first, then those for any host; the longest prefix wins.
    http-request set-var(txn.host) req.hdr(host),field(1,:),lower
    http-request set-var-fmt(txn.place) %[var(txn.host)]%[path]/
    http-request set-var(txn.service) var(txn.place),map_beg("$OPS_EDGE_STATE/routes.map")
    http-request set-var-fmt(txn.place) %[path]/ unless { var(txn.service) -m found }
    http-request set-var(txn.service) var(txn.place),map_beg("$OPS_EDGE_STATE/routes.map") unless { var(txn.service) -m found }
    http-request return <NO_SERVICE> unless { var(txn.service) -m found }

    # Which pool: live/candidate/weight/release of a/of b/of c.
    http-request set-var(txn.route) var(txn.service),map_str("$OPS_EDGE_STATE/routing.map")
    http-request set-var(txn.pool) var(txn.route),field(1,/)
    http-request set-var(txn.track) str(stable)
    acl has_candidate var(txn.route) -m reg ^[abc]/[abc]/

    # The client's class (0-99): the cookie that says it, or a hash of the credentials, or of the address and program.
    acl knows_bucket req.cook(ops_bucket) -m reg ^[0-9]{1,2}$
    acl has_credentials req.hdr(Authorization) -m found
    http-request set-var(txn.bucket) req.cook(ops_bucket),add(0) if has_candidate knows_bucket
    http-request set-var(txn.bucket) req.hdr(Authorization),xxh32(7),mod(100) if has_candidate !knows_bucket has_credentials
    http-request set-var-fmt(txn.key) "%[src] %[req.hdr(User-Agent)]" if has_candidate !knows_bucket !has_credentials
    http-request set-var-fmt(txn.key) "%[req.hdr(X-Forwarded-For)] %[req.hdr(User-Agent)]" if has_candidate !knows_bucket !has_credentials { req.hdr(X-Forwarded-For) -m found }
    http-request set-var(txn.bucket) var(txn.key),xxh32(7),mod(100) if has_candidate !knows_bucket !has_credentials
    http-request set-var(txn.new_bucket) var(txn.bucket) if has_candidate !knows_bucket !has_credentials
    http-after-response add-header Set-Cookie "ops_bucket=%[var(txn.new_bucket)]; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax" if { var(txn.new_bucket) -m found }

    http-request set-var(txn.candidate) var(txn.route),field(2,/) if has_candidate
    http-request set-var(txn.weight) var(txn.route),field(3,/),add(0) if has_candidate
    http-request set-var(txn.turn) var(txn.route),field(4,/),mul(37),add(txn.bucket),mod(100) if has_candidate { var(txn.candidate) -m str a }
    http-request set-var(txn.turn) var(txn.route),field(5,/),mul(37),add(txn.bucket),mod(100) if has_candidate { var(txn.candidate) -m str b }
    http-request set-var(txn.turn) var(txn.route),field(6,/),mul(37),add(txn.bucket),mod(100) if has_candidate { var(txn.candidate) -m str c }
    http-request set-var(txn.track) str(canary) if has_candidate { var(txn.turn),sub(txn.weight) -m int lt 0 }
    # Testers choose for themselves, by header or cookie.
    http-request set-var(txn.wish) req.cook(X-Ops-Track)
    http-request set-var(txn.wish) req.hdr(X-Ops-Track) if { req.hdr(X-Ops-Track) -m found }
    http-request set-var(txn.track) str(canary) if has_candidate { var(txn.wish) -m str -i candidate canary }
    http-request set-var(txn.track) str(stable) if has_candidate { var(txn.wish) -m str -i stable }
    http-request set-var(txn.pool) var(txn.candidate) if has_candidate { var(txn.track) -m str canary }

    http-request set-var(txn.release) var(txn.route),field(4,/) if { var(txn.pool) -m str a }
    http-request set-var(txn.release) var(txn.route),field(5,/) if { var(txn.pool) -m str b }
    http-request set-var(txn.release) var(txn.route),field(6,/) if { var(txn.pool) -m str c }
    http-after-response set-header X-Ops-Release %[var(txn.release)] if { var(txn.release) -m found }

    # Only ever written into replaced workers: the current one answers for them, and writes the log.
    acl is_replaced var(txn.route) -m str relay
    http-request set-log-level silent if is_replaced
    use_backend relay if is_replaced

    use_backend %[var(txn.service)]__%[var(txn.pool)] if { var(txn.pool) -m str a b c }
    default_backend nothing_deployed

backend relay from ops
    timeout server <TIMEOUT_CLIENT>
    server current unix@/run/ops-edge/relay.sock send-proxy-v2 no-check

backend nothing_deployed from ops
    http-request return <NOTHING_DEPLOYED>

frontend internal from ops
    bind :<INTERNAL_PORT>
    no log
    monitor-uri /health
    http-request use-service prometheus-exporter if { path /metrics }
    http-request return <NOT_FOUND>
"""
