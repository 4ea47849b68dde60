"""What a program sees of its confinement, and how it differs from that of ``docker run``."""

import re
from collections import Counter

STATE = (
    "grep -E '^(Umask|Uid|Gid|Groups|Cap|NoNew|Sec|Spec|Sig(Blk|Ign|Cgt)|Cpus|Mems)' "
    "/proc/1/status; "
    "cat /proc/1/limits /proc/1/attr/current /proc/1/cgroup /proc/1/uid_map /proc/1/loginuid; "
    "echo; sed 's/^/oom /' /proc/1/oom_score_adj; cut -d' ' -f 4-8 /proc/1/stat; id; umask; pwd; "
    "ulimit -a; env | sort; ls -l /proc/1/fd; ls -lan / /dev /etc /sys /proc/sys; mount; "
    "cat /proc/1/mountinfo; cat /proc/keys; cat /proc/mounts | wc -l; ls /proc/1/task; "
    "readlink /proc/1/exe /proc/1/cwd /proc/1/root; "
    "for f in /proc/sysrq-trigger /proc/sys/kernel/domainname /proc/1/mem; do echo x >$f; done; "
    "unshare -m true; mknod /tmp/x b 254 0; mount -t proc p /tmp; hostname x"
)
"""A script that shows what a program has and sees, and tries what must fail."""

NAMED = (
    # Differs between any two containers, or is set by the platform.
    (r"(?m)^(MSG|HOSTNAME|_abaco_\w+|SHLVL)=.*\n(?!\w+=)?", ""),
    (r"[0-9a-f]{64}|[0-9a-f]{12}\b", "<id>"),
    (r"pipe:\[\d+\]", "pipe"),
    (r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d", "<time>"),
    (r"/overlay2/l/[A-Z0-9:/a-z]+|overlay2/<id>(-init)?", "<layer>"),
    (r"(?m)^\d+ \d+ \d+:\d+ ", ""),  # numbers of mounts
    (r"master:\d+", "master"),
    (r"(?m)^(dr-xr-xr-x) +\d+ 0 +0 +0 <time> (proc|\.\.)$", r"\1 \2"),  # as many as processes
    # Without CAP_SYS_RESOURCE the worker can only protect the launcher by this.
    (r"(?m)^oom (0|10)$", "oom"),
)

IN_A_SANDBOX = (
    # The message's control groups are below the container's.
    (r"(?m)^(.*:/docker/<id>)/message", r"\1"),
    (r"/docker/<id>/message ", "/docker/<id> "),
    # Their mount has the name that it has on the machine.
    (r"- cgroup systemd rw,", "- cgroup cgroup rw,"),
    (r"- cgroup2 cgroup2 rw,", "- cgroup2 cgroup rw,"),
    (r"(?m)^cgroup2 on ", "cgroup on "),
    # What a directory of an overlay takes depends on the file system of the layer above.
    (r"(?m)^total \d+$", "total"),
    (r"(?m)^(d\S+ +1 \d+ +\d+) +\d+ (<time> \.\.?)$", r"\1 \2"),
    # The root is an overlay over the container's, and receives no mounts from the machine.
    (r"lowerdir=[^\s)]*", "<layers>"),
    (r" master ", " "),
    # The files that the engine makes are copies, on a tmpfs.
    (r"\S+ (/etc/|/moved/)(hosts|hostname|resolv.conf) (\S+) - .*", r"<copy> \1\2 \3"),
    (r"\S+ on (/etc/|/moved/)(hosts|hostname|resolv.conf) type \w+ \((\w+),.*", r"<copy> \1\2 \3"),
)
"""What differs in a sandbox (docs/adr/0064)."""


def differences(ours: str, theirs: str) -> list[str]:
    """Return the lines that only one of two outputs has, but for the differences above."""
    one, other = Counter(_comparable(ours)), Counter(_comparable(theirs))
    return [*(f"+ {line}" for line in one - other), *(f"- {line}" for line in other - one)]


def _comparable(output: str) -> list[str]:
    for pattern, plain in (*NAMED, *IN_A_SANDBOX):
        output = re.sub(pattern, plain, output)
    return output.splitlines()
