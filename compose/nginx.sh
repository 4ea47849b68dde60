#!/bin/sh
# Start nginx with the API's limit on bodies. `nginx.sh -t` only checks the configuration.
#
# nginx resolves the addresses of its upstreams once. A container that was created again may have
# another address, so this script resolves them every five seconds and reloads nginx after a change.
set -eu

echo "client_max_body_size ${ABACO_MAX_BODY_BYTES:-1048576};" >/tmp/limits.conf

addresses() {
    getent hosts api-1
    getent hosts api-2
}

follow() {
    seen=$(addresses) || true
    while sleep 5; do
        now=$(addresses) || continue # one container is missing: keep its last address
        [ "$now" = "$seen" ] || kill -HUP 1
        seen=$now
    done
}

[ "${1:-}" = -t ] || follow &
exec nginx -e stderr -c /etc/nginx/nginx.conf -g 'daemon off;' "$@"
