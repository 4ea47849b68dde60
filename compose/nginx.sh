#!/bin/sh
# Start nginx with the limit on bodies that the API has. `nginx.sh -t` only checks the configuration.
#
# nginx asks for the addresses of its upstreams once. A container that was made anew can have another,
# so this asks every few seconds, and has nginx read its configuration again where they changed.
set -eu

echo "client_max_body_size ${ABACO_MAX_BODY_BYTES:-1048576};" >/tmp/limits.conf

addresses() {
    getent hosts api-1
    getent hosts api-2
}

follow() {
    seen=$(addresses) || true
    while sleep 5; do
        now=$(addresses) || continue # one is away: its last address is as good as any
        [ "$now" = "$seen" ] || kill -HUP 1
        seen=$now
    done
}

[ "${1:-}" = -t ] || follow &
exec nginx -e stderr -c /etc/nginx/nginx.conf -g 'daemon off;' "$@"
