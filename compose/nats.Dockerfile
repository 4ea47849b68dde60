# NATS without root: a new volume gets the owner of the folder that it is mounted over.
FROM nats:2.15-alpine
RUN mkdir -p /data && chown 10001:10001 /data
USER 10001:10001
