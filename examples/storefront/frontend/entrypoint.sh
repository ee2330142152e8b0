#!/bin/sh
# Makes the writable folders and, for local work without an edge, the way to the API; then becomes nginx.
set -eu

mkdir -p /tmp/nginx
if [ -n "${API_UPSTREAM:-}" ]; then
    case "$API_UPSTREAM" in
        *[!A-Za-z0-9._:-]*) echo "API_UPSTREAM must be host:port" >&2; exit 2 ;;
    esac
    # The name is asked for again at run time: nginx starts without the API and follows it to a new address.
    resolver=$(sed -n 's/^nameserver[[:space:]]*//p' /etc/resolv.conf | head -n 1)
    cat > /tmp/nginx/api.conf <<CONF
location /api/ {
    resolver ${resolver:-127.0.0.11} valid=5s ipv6=off;
    resolver_timeout 2s;
    set \$api http://${API_UPSTREAM};
    proxy_pass \$api;
    proxy_http_version 1.1;
    proxy_set_header Host \$http_host;
    proxy_set_header X-Request-Id \$id;
    proxy_set_header X-Forwarded-For \$remote_addr;
    proxy_set_header X-Forwarded-Proto \$scheme;
    proxy_set_header Upgrade \$http_upgrade;
    proxy_set_header Connection \$connection_upgrade;
    proxy_connect_timeout 2s;
    proxy_read_timeout 60s;
    proxy_request_buffering off;
    client_max_body_size 6m;
    # A header of its own keeps the page's headers off the API's answers, which bring theirs.
    add_header Via "1.1 storefront-frontend";
}
CONF
else
    : > /tmp/nginx/api.conf
fi
exec "$@"
