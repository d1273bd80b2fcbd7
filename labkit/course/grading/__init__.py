"""Grading notebooks that nobody vouches for. `./lab grade`.

A submission is data. Nothing of it runs outside of a *room*: a container of labkit's own, without a network, with users
and PIDs of its own, a read-only root and little memory, that ends when its work is done::

    grader (this machine)                           a room per exercise
    ─────────────────────                           ───────────────────
    submission    the notebook, read as data;       judge       the exercise's own check. It sees the lab host from
                  only the source of its                        outside, and says what it saw. No code of the learner's
                  solution cells is taken                       runs in this process, nor as this user.
    rebuilt       the pristine lab with these       └─ lab host another user namespace, in which the learner's code is
                  cells in it                                   root, and whose processes alone have limits.
    verdict   ◀── one JSON text, capped, checked
                  against its schema                a room per notebook
    result        points, what was seen, why        ───────────────────
    report        CSV, JUnit, HTML                  nbval runs the rebuilt notebook from top to bottom; what it prints
                                                    is shown to people, and counts for nothing.

Modules: `results` is the vocabulary. `submission` reads, `rebuilt` puts together, `room` encloses, `judge` (in the
room) decides, `grade` does one submission, `many` does a class, `report` writes it down.
"""
