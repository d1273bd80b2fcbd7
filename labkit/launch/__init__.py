"""The start of a container's process in native steps, without a lab host or a course."""
