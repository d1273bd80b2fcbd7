"""The course: its framework, exercises, views, commands and the grading. No mechanism imports it."""
