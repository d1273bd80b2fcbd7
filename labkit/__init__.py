"""labkit: build a Linux container by hand, and the package the notebooks stand on.

Every module can be imported on its own, without root and without side effects. What a machine lacks is said when it
is called for, never at import. Imports point only downwards::

    lab/                                                     doctor, exercises, live views (nothing imports it)
    container/                                               one configuration, started and waited for
    namespaces rootfs mounts binds places detached           the mechanisms    vm/         microVMs, beside them
    overlay/ layers changeset cgroups/ network/ kvm/
    capabilities seccomp/ libseccomp bpf ptrace tracer
    process held output child host hostgroup labhost         the process boundary
    zygote keeper ready sealed idmap
    program layout loop syscalls constants errors messages   the kernel boundary
    descriptors temporary procfs paths tree cgroupfs netns arguments
    cgroup_errors privilege_errors overlay_errors

A name with a slash is a folder: a mechanism of several parts, or a system built of the mechanisms.
"""

__version__ = "0.1.0"
