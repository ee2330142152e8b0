#!/bin/sh
# Writes the configuration (with the password, if a file gives one) where only Redis can read it, becomes Redis.
set -eu
umask 077

file=${REDIS_PASSWORD_FILE:-/run/secrets/REDIS_PASSWORD}
password=
if [ -r "$file" ]; then
    password=$(cat "$file")
elif [ -e "$file" ]; then
    echo "$file cannot be read by user $(id -u): give the file mode 0444 inside a folder of mode 0700" >&2
    exit 2
fi
case "$password" in
    *[!A-Za-z0-9._-]*) echo "REDIS_PASSWORD may have letters, digits and . _ - only" >&2; exit 2 ;;
esac

if [ "${1:-}" = healthy ]; then
    [ -z "$password" ] || export REDISCLI_AUTH="$password"
    [ "$(timeout 2 redis-cli -h 127.0.0.1 ping)" = PONG ]
    exit
fi

{
    # A snapshot now and then keeps the cache warm over a restart; losing the last minute of a cache loses nothing.
    echo "dir /data"
    echo "save 60 100"
    echo "stop-writes-on-bgsave-error no"
    echo "maxmemory ${REDIS_MAXMEMORY:-64mb}"
    echo "maxmemory-policy allkeys-lru"
    echo "bind * -::*"
    echo "protected-mode no"
    [ -z "$password" ] || echo "requirepass $password"
} > /tmp/redis.conf
exec "$@"
