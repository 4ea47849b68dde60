"""The values of the official NATS chart: three servers with the same limits and permissions.

``python -m abaco_local.servers.nats_chart`` prints ``kubernetes/nats-values.yaml``.
"""

import json
import sys

from abaco_proto import permissions

VALUES = """\
# For the official chart (https://github.com/nats-io/k8s), as release `nats`: kubernetes/README.md.
# Generated from proto/abaco_proto/permissions.py by `python -m abaco_local.servers.nats_chart`.
config:
  cluster: {enabled: true, replicas: 3}
  jetstream:
    enabled: true
    fileStore:
      pvc: {size: 50Gi} # on separate disks: three on one disk are no safer than one
    memoryStore: {enabled: true, maxSize: 256Mi} # for the consumers of followers
    merge:
      sync_interval: always # an acknowledged event is on two disks, not in two memories
  merge:
    max_payload: << 8MB >>
    authorization:
      users:
"""

USER = """\
        - user: {user}
          password: << ${variable} >>
          permissions:
            publish:
{publish}            subscribe:
{subscribe}"""

REST = """\
container:
  image: {tag: 2.15-alpine} # conditional appends need 2.11; 2.15 is tested
  env:
    GOMEMLIMIT: 1600MiB
"""

VARIABLE = """\
    {variable}:
      valueFrom:
        secretKeyRef: {{name: abaco-nats-passwords, key: {variable}}}
"""

END = """\
  merge:
    resources:
      requests: {cpu: "1", memory: 2Gi}
      limits: {memory: 2Gi}
podTemplate:
  topologySpreadConstraints:
    kubernetes.io/hostname: {maxSkew: 1, whenUnsatisfiable: DoNotSchedule}
natsBox: {enabled: false} # it would need a user
"""


def values() -> str:
    """Return the text of the file."""
    users = permissions.users()
    variables = {user: f"{user.upper()}_PASSWORD" for user in users}
    text = VALUES
    for user, rights in users.items():
        text += USER.format(
            user=user,
            variable=variables[user],
            publish=_subjects(rights.publish),
            subscribe=_subjects(rights.subscribe),
        )
    env = "".join(VARIABLE.format(variable=variable) for variable in variables.values())
    return text + REST + env + END


def _subjects(subjects: tuple[str, ...]) -> str:
    return "".join(f"              - {json.dumps(subject)}\n" for subject in subjects)


if __name__ == "__main__":
    sys.stdout.write(values())
