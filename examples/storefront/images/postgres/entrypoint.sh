#!/bin/sh
# Makes the data directory once, sets the application's password to what the file says now, becomes PostgreSQL.
set -eu
umask 077

user=${POSTGRES_USER:-storefront}
database=${POSTGRES_DATABASE:-storefront}
file=${DATABASE_PASSWORD_FILE:-/run/secrets/DATABASE_PASSWORD}

case "$user$database" in
    *[!a-z0-9_]*) echo "POSTGRES_USER and POSTGRES_DATABASE may have a-z, 0-9 and _ only" >&2; exit 2 ;;
esac
if [ -r "$file" ]; then
    password=$(cat "$file")
elif [ -e "$file" ]; then
    echo "$file cannot be read by user $(id -u): give the file mode 0444 inside a folder of mode 0700" >&2
    exit 2
else
    password=${DATABASE_PASSWORD:-}
fi
unset DATABASE_PASSWORD
if [ -z "$password" ]; then
    echo "no password: neither the file $file nor the variable DATABASE_PASSWORD has one" >&2
    exit 2
fi

# Single-user mode: no socket is open yet, and the password is in no argument list and no log.
single() {
    postgres --single -D "$1" -c log_min_error_statement=panic -c log_min_messages=fatal "$2" > /dev/null
}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # Made beside and renamed at the end: a start that is killed half way leaves nothing that looks like a database.
    rm -rf "$PGDATA.new"
    initdb --pgdata "$PGDATA.new" --username postgres --encoding UTF8 --locale C.UTF-8 \
        --auth-local peer --auth-host scram-sha-256 --data-checksums > /dev/null
    echo "host all all all scram-sha-256" >> "$PGDATA.new/pg_hba.conf"
    printf 'CREATE ROLE %s LOGIN\nCREATE DATABASE %s OWNER %s\n' "$user" "$database" "$user" | single "$PGDATA.new" postgres
    sync
    mv "$PGDATA.new" "$PGDATA"
    echo "made database $database for $user" >&2
fi

rm -f "$PGDATA/postmaster.pid" # of a killed container; the volume has no other user
quoted=$(printf %s "$password" | sed "s/'/''/g")
printf "ALTER ROLE %s PASSWORD '%s'\n" "$user" "$quoted" | single "$PGDATA" postgres
unset password quoted
exec "$@"
