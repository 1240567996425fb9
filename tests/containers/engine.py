"""Whether a Docker engine answers, and the base images are here or can be had."""

import functools
import subprocess

BASES = ("python:3.11-slim", "postgres:17")


def docker(*arguments: str, check: bool = True, timeout_s: float = 600) -> "subprocess.CompletedProcess[str]":
    """Run `docker …`. Raises AssertionError with what it said where it fails."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.returncode}\n{done.stderr}"
    return done


@functools.cache
def missing() -> str:
    """Return why no containers can be run here; empty where they can."""
    try:
        if docker("compose", "version", check=False).returncode or docker("info", check=False).returncode:
            return "no Docker engine with compose answers"
    except FileNotFoundError:
        return "there is no Docker here"
    for image in BASES:
        is_here = docker("image", "inspect", image, check=False).returncode == 0
        if not is_here and docker("pull", "--quiet", image, check=False).returncode:
            return f"the image {image} cannot be had"
    return ""
