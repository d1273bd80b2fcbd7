"""Filters of system calls: profiles, compiled by libseccomp; seccomp(2)."""

from labkit.seccomp.profile import Arg, Profile, Rule
from labkit.seccomp.seccomp import available, compile_profile, default_profile, load, write

__all__ = ["Arg", "Profile", "Rule", "available", "compile_profile", "default_profile", "load", "write"]
