"""Why a system call failed: an errno, and what the learner's own state says about its cause."""
