#!/bin/sh
# Prepares what haproxy.cfg needs, then becomes HAProxy. The secret passes by file, so that `docker inspect` shows none.
set -eu

: "${OPS_FRONT_DOOR_HOSTS:=127.0.0.1:3000 localhost:3000}"
: "${OPS_FRONT_DOOR_SCHEME:=http}"
: "${OPS_FRONT_DOOR_USER:=localhost}"
: "${OPS_FRONT_DOOR_TRUSTED_PROXY:=}"
: "${OPS_FRONT_DOOR_IDENTITY_HEADER:=X-Forwarded-Email}"
: "${OPS_FRONT_DOOR_SECRET_PATH:=/run/dagster/secret}"

if [ -n "$OPS_FRONT_DOOR_TRUSTED_PROXY" ]; then
    OPS_FRONT_DOOR_MODE=proxied
else
    OPS_FRONT_DOOR_MODE=direct
    # An address nobody has (RFC 5737), so that no caller is ever the trusted proxy.
    OPS_FRONT_DOOR_TRUSTED_PROXY=192.0.2.1
fi

waited=0
until [ -s "$OPS_FRONT_DOOR_SECRET_PATH" ]; do
    if [ "$waited" -ge 120 ]; then
        echo "front door: no secret at $OPS_FRONT_DOOR_SECRET_PATH after 120 s; start the control plane with: ops serve" >&2
        exit 1
    fi
    waited=$((waited + 1))
    sleep 1
done
OPS_FRONT_DOOR_SECRET=$(cat "$OPS_FRONT_DOOR_SECRET_PATH")

for host in $OPS_FRONT_DOOR_HOSTS; do echo "$host"; done | tr '[:upper:]' '[:lower:]' > /run/front-door/hosts.lst

export OPS_FRONT_DOOR_SCHEME OPS_FRONT_DOOR_USER OPS_FRONT_DOOR_TRUSTED_PROXY OPS_FRONT_DOOR_IDENTITY_HEADER
export OPS_FRONT_DOOR_MODE OPS_FRONT_DOOR_SECRET
exec haproxy -W -db -f /etc/front-door/haproxy.cfg
