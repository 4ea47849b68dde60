# NATS as somebody other than root: a new volume takes over the owner of the folder it covers.
FROM nats:2.15-alpine
RUN mkdir -p /data && chown 10001:10001 /data
USER 10001:10001
