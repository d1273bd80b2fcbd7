"""`./lab test`: every test, several at once, each group of them where it disturbs nobody and nobody disturbs it.

Read in this order: `command` (the options), `lanes` (what there is to run), `jobs` (how it is divided), `schedule`
(what runs when, and what runs again), `sandbox` (where), `report` (what pytest says of it, test by test), `results`
(what is counted and shown), `related` (which tests go with a file), `install` (what the tests need).
"""
