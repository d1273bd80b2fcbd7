"""labkit: build a Linux container by hand, and the package the notebooks stand on.

Every module can be imported on its own, without root and without side effects. What a machine lacks is said when it
is called for, never at import. A room imports only from rooms below it, and those of one line do not import each other
(`pyproject.toml` has the contracts, `lint-imports` checks them)::

    lab                                   the name by which notebooks know the course
    course/                               exercises, experiments, views, grading, doctor, set-up, the ./lab commands
    container/    kvm/    vm/             one configuration, started and waited for; guests and virtual machines
    network/      namespaces              bridges, endpoints, published ports; who is in which namespace
    process/                              a function in a child process, a running process, its input and output
    cgroups/                              control groups: limits, figures, events
    host/                                 the lab host, its zygote and its guardians
    launch/                               the start of a container's process in native steps; needs no lab host
    rootfs  changeset  tracer             root filesystems, what has changed in one, system calls as they happen
    seccomp/  overlay/  ptrace
    mounts/  capabilities  bpf  libseccomp
    program/                              a list of system calls that a child makes without Python
    kernel/  idmap  syscalls              the kernel's interfaces, one function for each system call
    errors  explain/  procfs              the exceptions; why a call failed; what /proc says
    constants  files/  temporary  arguments
"""

__version__ = "0.1.0"
